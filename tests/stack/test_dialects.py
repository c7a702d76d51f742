"""Schemas that the demo does not show, each from a real Triton through the whole stack.

Older and newer dialects, BLS that accumulates, every kind of embedding model, an OpenAI-HTTP upstream that
embeds, and a model that no lane speaks to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from inference.tokenizer import ModelTokenizer
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.manifests import to_yaml
from tests.command_line import run_here
from tests.stack.dialects import (
    CHATS,
    WEIGHTS,
    apply,
    dialect_server,
    endpoints,
    openai_upstream,
    ready_models,
)
from tests.stack.stack import Stack, events_of, wait_until

OF_THE_DEMO = ("depot-chat", "siding-chat")
"""The newest `llmapi` and vLLM, over the same weights; BLS that does not accumulate is its kiosk-chat."""
EMBEDDERS = {
    "token": ("token_vectors", "encoder"),
    "text": ("text_vectors", "text_encoder"),
    "vllm-embed": ("vllm_vectors", "vllm"),
    "relayed": ("depot-chat", "openai-http"),
}
CHAT = [{"role": "user", "content": "How do I store a box?"}]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRef]:
    with dialect_server(tmp_path_factory.mktemp("dialects")) as server:
        yield server


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRef]:
    """An OpenAI-HTTP server that embeds."""
    with openai_upstream(tmp_path_factory.mktemp("upstream") / "log", **{"depot-chat": WEIGHTS}) as server:
        yield server


@pytest.fixture(scope="module")
def http(stack: Stack, triton: ServerRef, upstream: ServerRef) -> Iterator[httpx2.Client]:
    """A client of the stack, which has every model of this file."""
    objects: list[Model | Deployment] = []
    for name, (target, lane) in {**CHATS, **EMBEDDERS}.items():
        embeds = name in EMBEDDERS
        objects.append(
            Model(
                name=name,
                context_length=512 if embeds else 1024,
                tokenizer=str(WEIGHTS),
                modality="embedding" if embeds else "text",
            )
        )
        server = upstream if lane == "openai-http" else triton
        objects.append(
            Deployment.model_validate(
                {"name": name, "model": name, "lane": lane, "target": target, "servers": (server,)}
            )
        )
    with httpx2.Client(base_url=stack.origin, headers=stack.headers, timeout=60) as client:
        apply(client, stack, to_yaml(objects))
        names = {*CHATS, *EMBEDDERS}
        wait_until(lambda: names <= ready_models(client, stack), 30, "every endpoint is ready")
        yield client
        for item in reversed(objects):
            kind = "deployment" if isinstance(item, Deployment) else "model"
            client.delete(f"/admin/v1/objects/{kind}/{item.name}", headers=stack.admin_headers)


def chat(http: httpx2.Client, model: str, **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": CHAT, "temperature": 0, "max_tokens": 40, **fields}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if not fields.get("stream"):
        whole = answer.json()
        choice = whole["choices"][0]
        return {"text": choice["message"]["content"], "reason": choice["finish_reason"], **whole["usage"]}
    events = events_of(answer.content)
    choices = [event["choices"][0] for event in events if event["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return {"text": text, "reason": choices[-1]["finish_reason"], **events[-1]["usage"]}


STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("model", [*CHATS, *OF_THE_DEMO])
def test_a_stream_is_the_whole_answer_with_exact_usage(http: httpx2.Client, model: str) -> None:
    """And all dialects say the same, since they run the same engine."""
    whole, streamed, bare = chat(http, model), chat(http, model, **STREAM), chat(http, "bare-019")
    assert streamed["text"] == whole["text"] == bare["text"]
    assert streamed["reason"] == whole["reason"] == bare["reason"]
    tokenizer = ModelTokenizer.load(WEIGHTS)
    _, ids = tokenizer.encode_chat(CHAT)
    counted = len(ids), tokenizer.count(whole["text"])
    assert (whole["prompt_tokens"], whole["completion_tokens"]) == counted
    assert (streamed["prompt_tokens"], streamed["completion_tokens"]) == counted


@pytest.mark.parametrize("model", [*CHATS, *OF_THE_DEMO])
def test_a_stop_string_ends_it_before(http: httpx2.Client, model: str) -> None:
    text = chat(http, model)["text"]
    stop = text[8:12]
    for more in ({}, STREAM):
        cut = chat(http, model, stop=[stop], **more)
        assert (cut["text"], cut["reason"]) == (text[: text.index(stop)], "stop")


@pytest.mark.parametrize("model", [*CHATS, *OF_THE_DEMO])
def test_a_limit_ends_it_with_length(http: httpx2.Client, model: str) -> None:
    for more in ({}, STREAM):
        cut = chat(http, model, max_tokens=3, **more)
        assert (cut["reason"], cut["completion_tokens"]) == ("length", 3)


@pytest.mark.parametrize("model", [*CHATS, *OF_THE_DEMO])
def test_equal_seeds_give_equal_answers(http: httpx2.Client, model: str) -> None:
    hot = {"temperature": 1.5, "seed": 5}
    assert chat(http, model, **hot)["text"] == chat(http, model, **hot, **STREAM)["text"]


@pytest.mark.parametrize("model", [*CHATS, *OF_THE_DEMO])
def test_what_is_too_long_is_refused_by_name(http: httpx2.Client, model: str) -> None:
    """By the gateway where the model's context says so, else in the engine's words: its limit is lower."""
    for words in (3000, 500):
        long = [{"role": "user", "content": "box " * words}]
        body = {"model": model, "messages": long, "max_tokens": 4}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 400 or (words == 500 and answer.status_code == 200)
        if answer.status_code == 400:
            assert answer.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("model", ["bare-019", "llmapi-1x", *OF_THE_DEMO])
def test_a_client_that_leaves_does_not_block_the_next(http: httpx2.Client, model: str) -> None:
    """More clients leave than the engine has slots; then one is answered."""
    body = {"model": model, "messages": CHAT, "stream": True, "max_tokens": 900, "temperature": 1.5}
    for _ in range(10):
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_bytes())
    assert chat(http, model)["text"]


@pytest.mark.parametrize("model", EMBEDDERS)
def test_every_embedding_model_gives_the_same_vectors_and_usage(http: httpx2.Client, model: str) -> None:
    texts = ["How do I store a box?", "steam", "東京タワー, a tower"]
    asked = http.post("/v1/embeddings", json={"model": model, "input": texts})
    assert asked.status_code == 200, asked.text
    reference = http.post("/v1/embeddings", json={"model": "token", "input": texts}).json()
    assert asked.json()["usage"] == reference["usage"]
    assert [entry["index"] for entry in asked.json()["data"]] == [0, 1, 2]
    for got, wanted in zip(asked.json()["data"], reference["data"], strict=True):
        assert got["embedding"] == pytest.approx(wanted["embedding"], abs=1e-5)


@pytest.mark.parametrize("model", EMBEDDERS)
def test_a_wrong_embedding_request_names_the_field(http: httpx2.Client, model: str) -> None:
    empty = http.post("/v1/embeddings", json={"model": model, "input": ["a", ""]})
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "input[1]")
    if model != "relayed":
        long = http.post("/v1/embeddings", json={"model": model, "input": ["a", "box " * 600]})
        assert long.json()["error"]["code"] == "context_length_exceeded"
        assert long.json()["error"]["param"] == "input[1]"
        short = http.post("/v1/embeddings", json={"model": model, "input": "a", "dimensions": 8})
        assert short.json()["error"]["param"] == "dimensions"


def test_a_text_encoder_takes_no_ids(http: httpx2.Client) -> None:
    refused = http.post("/v1/embeddings", json={"model": "text", "input": [5, 6]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")


def test_an_unknown_schema_is_shown_with_what_it_lacks(
    http: httpx2.Client, stack: Stack, triton: ServerRef
) -> None:
    """By `enginehouse describe deployment`: what was found, and what the nearest lane wants."""
    model = Model(name="puzzle", context_length=64, tokenizer=str(WEIGHTS))
    deployment = Deployment(name="puzzle", model="puzzle", target="old_before", servers=(triton,))
    apply(http, stack, to_yaml([model, deployment]))

    def reason() -> str:
        return next((e["reason"] or "" for e in endpoints(http, stack) if e["model"] == "puzzle"), "")

    wait_until(lambda: "no lane speaks" in reason(), 10, "the controller has looked")
    where = {"ENGINEHOUSE_URL": stack.origin, "ENGINEHOUSE_ADMIN_KEY": str(stack.ready["admin_key"])}
    said = run_here("describe", "deployment", "puzzle", **where)
    assert said.returncode == 0, said.stderr
    assert "state=unhealthy" in said.stdout
    assert "Found inputs: QUERY BYTES" in said.stdout
    assert "lacks: input" in said.stdout
    asked = http.post("/v1/chat/completions", json={"model": "puzzle", "messages": CHAT})
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "no_endpoints")
    for kind in ("deployment", "model"):
        http.delete(f"/admin/v1/objects/{kind}/puzzle", headers=stack.admin_headers)
    assert "Traceback" not in json.dumps(asked.json())
