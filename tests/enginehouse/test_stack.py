"""A local stack is a value that becomes a manifest which the registry accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.engine.pacing import Pacing, StepLoad
from enginehouse.connection import Connection
from enginehouse.errors import ProcessError, SettingsError
from enginehouse.local.manifest import names_of, stack_manifest
from enginehouse.local.model_servers import FallbackServers, Placement, triton_queue, weights_folder
from enginehouse.local.paced_card import CONTEXT_TOKENS
from enginehouse.local.ports import free_port
from enginehouse.local.ready import each_answers, names_to_ask
from enginehouse.local.stack import DEMO_STACK, DeploymentEntry, needed_memory_bytes, read_stack
from enginehouse.local.state_dir import StateDir
from enginehouse.local.up import own_url
from model_registry.entities import Adapter, Deployment, Model, ServerRef
from model_registry.knobs import BUILT_IN
from model_registry.manifests import parse_manifests
from model_registry.pools import Pool, TritonActuator
from model_registry.triton_queue import TritonQueue

SMALL = """
servers:
  - name: triton-0
    engines:
      - {weights: house-chat, text_models: true}
models:
  - {name: house-chat, weights: house-chat}
deployments:
  - {name: house-chat, model: house-chat, server: triton-0, target: tensorrt_llm}
"""


def _place(deployment: DeploymentEntry) -> Placement:
    server = ServerRef(
        http="http://127.0.0.1:8000", grpc="127.0.0.1:8001", metrics="http://127.0.0.1:8002/metrics"
    )
    return Placement(server, deployment.lane, deployment.target)


def _objects(text: str) -> list[Model | Adapter | Deployment]:
    kinds = Model | Adapter | Deployment
    return [item for item in parse_manifests([("stack.yaml", text)]) if isinstance(item, kinds)]


def test_the_demo_shows_many_models_and_schemas() -> None:
    """One model under two profiles, every schema of TensorRT-LLM, vLLM's, and embeddings."""
    objects = _objects(stack_manifest(DEMO_STACK, _place))
    deployments = [item for item in objects if isinstance(item, Deployment)]
    assert {"house-chat", "depot-chat", "siding-chat", "house-vectors", "yard-chat", "kiosk-chat"} == {
        item.name for item in objects if isinstance(item, Model)
    }
    assert {"latency", "throughput"} == {item.profile for item in deployments if item.model == "house-chat"}
    assert {
        *("tensorrt_llm", "ensemble", "tensorrt_llm_bls", "house-chat", "depot-chat"),
        *("siding-chat", "house-vectors"),
    } == {str(item.target) for item in deployments}


def test_engines_that_keep_a_gpus_time_have_its_card() -> None:
    """Those of text models alone; the card keeps to what the engine was built for."""
    pacing = Pacing.load("h100-sxm-llama-3.1-8b-fp8")
    assert pacing is not None
    objects = _objects(stack_manifest(DEMO_STACK, _place, pacing))
    cards = {item.name: item.card for item in objects if isinstance(item, Deployment)}
    assert cards.pop("house-vectors") is None
    assert all(cards.values())
    found = cards["house-chat-latency"]
    assert found is not None
    assert (found.source, found.slots, found.chunk_tokens, found.kv_tokens) == ("planned", 16, 512, 512 * 32)
    for decoding in (1, 9):
        load = StepLoad(0, 0, decoding, decoding * CONTEXT_TOKENS)
        step_s = found.step_base_s + decoding * found.step_per_request_s
        assert step_s == pytest.approx(pacing.step_s(load))


def test_an_engines_triton_is_told_what_the_profile_of_its_deployments_says() -> None:
    """Of one that serves several, what is common; what the stack says itself wins."""
    latency, throughput = (server.engines[0] for server in DEMO_STACK.servers)
    assert triton_queue(DEMO_STACK, throughput) == BUILT_IN["throughput"].triton
    assert triton_queue(DEMO_STACK, latency) == TritonQueue()
    limits = {**throughput.limits, "batch_scheduler_policy": "guaranteed_no_evict", "max_queue_size": 9}
    said = throughput.model_copy(update={"limits": limits})
    servers = [
        one.model_copy(update={"engines": (said,)}) if one is DEMO_STACK.servers[1] else one
        for one in DEMO_STACK.servers
    ]
    only = [one for one in DEMO_STACK.deployments if one.name.startswith("house-chat")]
    stack = DEMO_STACK.model_copy(update={"servers": tuple(servers), "deployments": tuple(only)})
    found = triton_queue(stack, said)
    assert (found.batch_scheduler_policy, found.max_queue_size) == ("guaranteed_no_evict", 9)
    assert found.max_queue_delay_us == 2000


def test_a_pool_of_a_stack_is_its_servers_and_a_scaled_deployment_has_none_of_its_own() -> None:
    """The example; its engines are there to be loaded, and not loaded yet."""
    stack = read_stack(Path("examples/scaling/stack.yaml"))
    text = stack_manifest(stack, _place, address=lambda name: ServerRef(http=f"http://{name}:8000"))
    objects = parse_manifests([("stack.yaml", text)])
    (pool,) = (item for item in objects if isinstance(item, Pool))
    assert isinstance(pool.actuator, TritonActuator)
    assert [one.http for one in pool.actuator.servers] == [f"http://{one.name}:8000" for one in stack.servers]
    deployments = [item for item in objects if isinstance(item, Deployment)]
    assert all(item.servers == () and item.scaling is not None for item in deployments)
    assert not any(engine.loaded for server in stack.servers for engine in server.engines)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("loaded: false", "loaded: true"), "say loaded: false"),
        (("pool: tritons", "pool: others"), "no pool 'others'"),
        (("target: depot-chat", "target: depot-chat\n    server: triton-0"), "give either server or scaling"),
    ],
)
def test_a_scaled_deployment_that_cannot_be_is_told(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(Path("examples/scaling/stack.yaml").read_text().replace(*change))
    with pytest.raises(SettingsError) as raised:
        read_stack(path)
    assert told in str(raised.value.remedy)


def test_models_come_before_what_names_them_and_find_their_tokenizer() -> None:
    """The manifest can be applied in the order in which it is written."""
    objects = _objects(stack_manifest(DEMO_STACK, _place))
    kinds = [type(item) for item in objects]
    assert kinds == sorted(kinds, key=[Model, Adapter, Deployment].index)
    assert all(
        Path(str(item.tokenizer), "tokenizer.json").exists() for item in objects if isinstance(item, Model)
    )
    adapters = [item for item in objects if isinstance(item, Adapter)]
    assert adapters
    assert all(Path(str(item.path), "adapter_config.json").exists() for item in adapters)


def test_every_model_is_asked_under_every_profile_before_the_stack_is_ready() -> None:
    """Readiness means that each way to each model answers."""
    assert names_to_ask(DEMO_STACK) == {
        "depot-chat:balanced": "text",
        "house-chat+sailor": "text",
        "house-chat:latency": "text",
        "house-chat:throughput": "text",
        "house-vectors:balanced": "embedding",
        "kiosk-chat:balanced": "text",
        "siding-chat:balanced": "text",
        "yard-chat:balanced": "text",
    }


def test_without_triton_each_engine_has_one_server(state: StateDir) -> None:
    """Deployments of one engine share its address, whatever schema they would have used."""
    servers = FallbackServers(DEMO_STACK, state, "none")
    places = {item.name: servers.placement(item) for item in DEMO_STACK.deployments}
    assert len(servers.services) == 5
    assert {place.lane for place in places.values()} == {"openai-http"}
    assert places["yard-chat"].server == places["kiosk-chat"].server == places["house-chat-latency"].server
    assert places["house-chat-throughput"].server != places["house-chat-latency"].server


async def test_a_model_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the gateway's last word, not a group of exceptions."""
    monkeypatch.setattr("enginehouse.local.ready.MODELS_READY_TIMEOUT_S", 0.0)
    nobody = Connection(f"http://127.0.0.1:{free_port()}", None, None)
    with pytest.raises(ProcessError, match="chat:latency does not answer") as caught:
        await each_answers(nobody, {"chat:latency": "text"})
    assert "Connector" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_a_gateway_is_reached_wherever_it_listens(host: str, url: str) -> None:
    """IPv6 addresses stand in brackets, and everywhere includes here."""
    assert own_url(host, 80) == url


def test_what_a_run_applied_is_known_to_the_next(state: StateDir) -> None:
    """So that objects which are no longer wanted can be deleted."""
    assert state.applied() == set()
    state.remember_applied(names_of(DEMO_STACK))
    assert ("Deployment", "yard-chat") in StateDir(state.root).applied()
    assert len(state.applied()) == sum(
        map(len, (DEMO_STACK.models, DEMO_STACK.adapters, DEMO_STACK.deployments))
    )


def test_a_stack_is_read_from_yaml(tmp_path: Path) -> None:
    """And needs less memory than the demo."""
    path = tmp_path / "stack.yaml"
    path.write_text(SMALL)
    stack = read_stack(path)
    assert [model.name for model in stack.models] == ["house-chat"]
    assert needed_memory_bytes(stack) < needed_memory_bytes(DEMO_STACK)
    assert needed_memory_bytes(stack, workers=2) > needed_memory_bytes(stack)


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("server: triton-9", "server: triton-0", "no server 'triton-9'"),
        ("target: bert", "target: tensorrt_llm", "has no model 'bert'"),
        ("model: nobody", "model: house-chat", "no model 'nobody'"),
        ("weight: house-chat", "weights: house-chat", "weight"),
    ],
)
def test_a_stack_that_does_not_agree_with_itself_is_refused(
    tmp_path: Path, wrong: str, right: str, told: str
) -> None:
    """With the file, the field and the name that is wrong."""
    path = tmp_path / "stack.yaml"
    path.write_text(SMALL.replace(right, wrong))
    with pytest.raises(SettingsError) as refused:
        read_stack(path)
    assert str(path) in refused.value.message
    assert told in (refused.value.remedy or "")


def test_unknown_weights_are_refused_with_those_there_are() -> None:
    """The operator sees what is shipped."""
    with pytest.raises(SettingsError) as refused:
        weights_folder("gpt-9")
    assert "depot-chat, house-chat" in (refused.value.remedy or "")


@pytest.mark.parametrize("example", ["own-triton.yaml", "openai-upstream.yaml"])
def test_the_example_manifests_are_accepted(example: str) -> None:
    """What the documentation tells to apply can be applied."""
    path = Path(__file__).parents[2] / "examples" / example
    kinds = [type(item) for item in parse_manifests([(example, path.read_text())])]
    assert kinds == [Model, Deployment]
