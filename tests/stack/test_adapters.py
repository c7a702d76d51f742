"""LoRA adapters by the `openai` SDK, on two workers: named, listed, allowed, evicted, sent after a crash."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
import yaml
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from emulator.engine import ModelConfig
from tests.emulator.adapters import write_adapter
from tests.stack.stack import ROOT, Stack, wait_until
from tests.stack.test_faults import while_streaming

MODELS = ROOT / "emulator" / "models"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
OTHERS = ("butler", "scribe", "parrot")
"""Besides the demo's own; more than an engine's cache holds."""


def answer(client: OpenAI, model: str, *, stream: bool = False) -> str:
    if not stream:
        whole = client.chat.completions.create(model=model, messages=ASK, temperature=0, max_tokens=48)
        assert whole.model == model
        return whole.choices[0].message.content or ""
    chunks = client.chat.completions.create(
        model=model, messages=ASK, temperature=0, max_tokens=48, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def apply(stack: Stack, *documents: dict[str, object]) -> None:
    files = [{"name": "adapters.yaml", "text": yaml.safe_dump_all(documents)}]
    url = f"{stack.origin}/admin/v1/apply"
    httpx2.post(url, json={"files": files}, headers=stack.admin_headers).raise_for_status()


def adapter(name: str, path: Path, **fields: object) -> dict[str, object]:
    return {"kind": "Adapter", "name": name, "model": "house-chat", "path": str(path), **fields}


@pytest.fixture(scope="module")
def client(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """With more adapters than an engine's cache holds, gone again at the end."""
    folder, config = tmp_path_factory.mktemp("adapters"), ModelConfig.load(MODELS / "house-chat")
    apply(
        stack,
        adapter("butler", MODELS / "adapters" / "house-chat-butler", aliases=["jeeves"]),
        *(
            adapter(name, write_adapter(folder / name, config, seed, rank=4))
            for seed, name in enumerate(("scribe", "parrot"))
        ),
    )
    client = stack.client()
    wait_until(lambda: "house-chat+parrot" in listed(client), 10, "the adapters are served")
    yield client
    for name in OTHERS:
        url = f"{stack.origin}/admin/v1/objects/adapter/{name}"
        httpx2.delete(url, headers=stack.admin_headers).raise_for_status()


def listed(client: OpenAI) -> set[str]:
    """What both workers list: asked over several connections."""
    found = [{model.id for model in client.with_options().models.list()} for _ in range(4)]
    return set.intersection(*found)


def test_an_adapter_answers_in_its_own_manner(client: OpenAI) -> None:
    base = answer(client, "house-chat")
    assert "captain" not in base
    for model in ("house-chat+sailor", "house-chat+sailor:latency", "house-chat+sailor:throughput"):
        said = answer(client, model)
        assert said.startswith("Aye, captain!")
        assert answer(client, model, stream=True) == said
    assert answer(client, "jeeves") == answer(client, "house-chat+butler") != base
    assert answer(client, "house-chat") == base


def test_adapters_are_listed_as_vllm_lists_them(client: OpenAI) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert models["house-chat+sailor"]["parent"] == "house-chat"
    assert models["house-chat+sailor"]["root"] == "sailor"
    assert models["jeeves"]["parent"] == "house-chat"
    assert "parent" not in models["house-chat"]
    assert client.models.retrieve("house-chat+sailor").id == "house-chat+sailor"


def test_unknown_adapters_are_unknown_models(client: OpenAI) -> None:
    for name in ("house-chat+nobody", "depot-chat+sailor", "sailor"):
        with pytest.raises(openai.NotFoundError) as raised:
            answer(client, name)
        assert raised.value.code == "model_not_found"


def test_more_adapters_than_the_cache_holds_all_answer(stack: Stack, client: OpenAI) -> None:
    """On both workers at once: every request finds its adapter, whoever evicted it.

    While all that the cache holds are in use, the answer is a 429 whose `Retry-After` the SDK follows.
    """
    names = ["house-chat+sailor:latency", *(f"house-chat+{name}:latency" for name in OTHERS)]
    alone = {name: answer(client, name) for name in names}
    assert len(set(alone.values())) == len(names)

    def ask(name: str) -> tuple[str, str]:
        with stack.client() as own:  # a connection of its own may reach the other worker
            return name, answer(own.with_options(max_retries=8), name)

    with ThreadPoolExecutor(4) as pool:
        for name, said in pool.map(ask, names * 8):
            assert said == alone[name]
    page = httpx2.get(str(stack.ready["metrics_url"])).text
    assert 'outcome="adapter_missing"' in page
    assert 'model="house-chat+butler"' in page


def test_several_answers_are_all_the_adapters(client: OpenAI) -> None:
    made = client.chat.completions.create(model="house-chat+butler", messages=ASK, temperature=0, n=3)
    assert {choice.message.content for choice in made.choices} == {answer(client, "jeeves")}


def test_a_server_that_starts_anew_is_sent_the_weights_again(stack: Stack, client: OpenAI) -> None:
    before = answer(client, "house-chat+sailor:latency")
    port = stack.ready["triton"][0]["http"].rpartition(":")[2]
    servers = stack.children("tritonserver", "--http-port")
    victim = [server for server in servers if any(port in word for word in server.cmdline())]
    assert len(victim) == 1
    endings = asyncio.run(
        while_streaming(stack, "house-chat+sailor:latency", lambda: victim[0].send_signal(signal.SIGKILL))
    )
    assert all(ending.done and ending.finish == "length" for ending in endings)  # by the other endpoint
    assert answer(client, "house-chat+sailor:latency") == before
    wait_until(lambda: is_served(stack, port), 60, "Triton serves again")
    assert answer(client, "house-chat+sailor:latency") == before
    assert answer(client, "house-chat+sailor:latency", stream=True) == before


def is_served(stack: Stack, port: str) -> bool:
    """Whether the endpoint on `port` is ready in the registry."""
    url = f"{stack.origin}/admin/v1/objects/endpoints/house-chat-latency@127.0.0.1:{port}"
    found = httpx2.get(url, headers=stack.admin_headers)
    return found.status_code == 200 and '"state":"ready"' in found.text.replace(" ", "")


def test_a_tenant_may_be_given_an_adapter_alone_or_none_at_all(stack: Stack, client: OpenAI) -> None:
    apply(
        stack,
        {"kind": "Tenant", "name": "harbour", "allowed_models": ["house-chat+sailor"]},
        {"kind": "Tenant", "name": "manor", "allowed_models": ["house-chat"]},
        adapter(
            "parrot", Path(str(stack.directory)) / "none", restricted=True, description="nobody's business"
        ),
    )
    keys = {}
    for tenant in ("harbour", "manor"):
        body = {"tenant": tenant, "name": f"{tenant}-key"}
        made = httpx2.post(f"{stack.origin}/admin/v1/keys", json=body, headers=stack.admin_headers)
        keys[tenant] = made.raise_for_status().json()["key"]
    harbour, manor = (OpenAI(base_url=stack.base_url, api_key=keys[t], max_retries=0) for t in keys)
    wait_until(lambda: _works(harbour, "house-chat+sailor"), 10, "both workers know the key")
    with pytest.raises(openai.PermissionDeniedError):
        answer(harbour, "house-chat")
    assert answer(manor, "house-chat+butler")
    with pytest.raises(openai.PermissionDeniedError):
        answer(manor, "house-chat+parrot")
    assert "house-chat+parrot" not in listed(manor)
    with pytest.raises(openai.InternalServerError) as raised:
        answer(client, "house-chat+parrot")  # allowed, but its folder is not there
    assert raised.value.code == "model_misconfigured"
    with pytest.raises(openai.NotFoundError) as unknown:
        answer(manor, "house-chat+parrott")
    assert "house-chat+parrot'" not in str(unknown.value)


def test_traces_name_the_adapter(stack: Stack, client: OpenAI) -> None:
    trace_file = Path(str(stack.ready["trace_file"]))
    made = client.chat.completions.with_raw_response.create(
        model="house-chat+sailor", messages=ASK, max_tokens=4
    )
    trace_id = str(made.headers["x-trace-id"])
    wait_until(lambda: trace_id in trace_file.read_text(), 10, "the trace is written")
    spans = [line for line in trace_file.read_text().splitlines() if trace_id in line]
    assert any('"enginehouse.adapter"' in line and '"house-chat+sailor"' in line for line in spans)


def _works(client: OpenAI, model: str) -> bool:
    try:
        return all(answer(client, model) for _ in range(4))
    except openai.AuthenticationError:
        return False
