"""Probe inferences on a real Triton: every lane answers; a server that lies is found, and when it is well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controller.config import ControllerConfig
from controller.probing import Probing
from controller.run import Controller
from inference.control import health
from inference.introspection import introspect
from inference.probe import probe_inference
from model_registry.config import RegistryConfig
from model_registry.demand.demand import EndpointDemand, WorkerDemand
from model_registry.demand.store import DemandStore
from model_registry.entities import Deployment, Endpoint, LaneName, Model, ServerRef
from model_registry.store import RegistryStore
from tests.emulator.triton.server import Server
from tests.model_registry.conftest import config, eventually, redis_client, redis_server, store

__all__ = ["config", "redis_client", "redis_server", "store"]

FAST = ControllerConfig(interval_s=0.1, leadership_ttl_s=1.0, infer_probe_s=300, infer_probe_timeout_s=1.0)


@pytest.fixture
def hang(fault_file: Path) -> Iterator[Callable[[bool], None]]:
    def switch(on: bool) -> None:
        fault_file.write_text(json.dumps({"fault": "hang" if on else None}))

    yield switch
    fault_file.unlink(missing_ok=True)


async def endpoint_of(server: Server, target: str, lane: LaneName) -> Endpoint:
    at = ServerRef(http=server.process.http_url, grpc=server.process.grpc_url)
    schema = await introspect(at, target, lane)
    return Endpoint(
        name="d@s", deployment="d", model="m", profile="balanced", lane=schema.lane, target=schema.target,
        http=at.http, grpc=at.grpc, server_schema=schema.as_dict(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("target", "lane", "embeds"),
    [
        ("tensorrt_llm", "tensorrt_llm", False),
        ("old", "tensorrt_llm", False),
        ("whole", "tensorrt_llm", False),
        ("ensemble", "ensemble", False),
        ("tensorrt_llm_bls", "tensorrt_llm_bls", False),
        ("llmapi", "llmapi", False),
        ("vllm", "vllm", False),
        ("vllm_embed", "vllm", True),
        ("encoder", "encoder", True),
        ("token_encoder", "encoder", True),
        ("text_encoder", "text_encoder", True),
    ],
)
async def test_every_lane_answers_a_probe(server: Server, target: str, lane: LaneName, embeds: bool) -> None:
    endpoint = await endpoint_of(server, target, lane)
    assert await probe_inference(endpoint, embeds, 20.0) is None


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_a_probe_that_hangs_is_cancelled_at_the_engine(
    server: Server, hang: Callable[[bool], None], transport: str
) -> None:
    hang(True)
    endpoint = (await endpoint_of(server, "tensorrt_llm", "tensorrt_llm")).model_copy(
        update={"transport": transport}
    )
    probe = asyncio.create_task(probe_inference(endpoint, False, 0.5))
    await server.until_active("tensorrt_llm", lambda active: active == 1)
    assert "answered no inference within 0.5 s" in (await probe or "")
    await server.until_active("tensorrt_llm", lambda active: active == 0)


async def test_a_server_that_refuses_has_answered_and_one_that_fails_has_not(
    server: Server, fault_file: Path, hang: Callable[[bool], None]
) -> None:
    endpoint = await endpoint_of(server, "tensorrt_llm", "tensorrt_llm")
    fault_file.write_text(json.dumps({"fault": "error_before"}))
    assert "an inference failed" in (await probe_inference(endpoint, False, 20.0) or "")
    hang(False)
    assert await probe_inference(endpoint, False, 20.0) is None
    gone = endpoint.model_copy(update={"http": "http://127.0.0.1:9"})
    assert "unreachable" in (await probe_inference(gone, False, 20.0) or "")


async def test_a_replica_that_lies_is_taken_out_and_comes_back_when_a_probe_works(
    server: Server,
    store: RegistryStore,
    redis_client: object,
    config: RegistryConfig,
    hang: Callable[[bool], None],
) -> None:
    """Nobody would look for five minutes; what a gateway says of its requests calls for it at once."""
    patient = config.model_copy(update={"command_timeout_s": 10.0})
    demand = DemandStore.of(redis_client, patient)  # type: ignore[arg-type]
    url = server.process.http_url
    await store.apply(
        [
            Model(name="m", context_length=100),
            Deployment(name="d", model="m", target="tensorrt_llm", servers=(ServerRef(http=url),)),
        ]
    )
    controller = Controller(
        store, introspect, health, FAST, probing=Probing(probe_inference, FAST, demand.gather)
    )

    def state(wanted: str) -> Callable[[], Awaitable[Endpoint | None]]:
        async def ask() -> Endpoint | None:
            found = [one for one in await store.list("Endpoint") if isinstance(one, Endpoint)]
            return next((one for one in found if one.state == wanted), None)

        return ask

    async def ready() -> Endpoint:
        endpoint = await eventually(state("ready"), within_s=60)
        assert endpoint is not None
        return endpoint

    task = asyncio.create_task(controller.run())
    try:
        serving = await ready()
        hang(True)
        await demand.report("w", WorkerDemand(endpoints={serving.name: EndpointDemand(failed=1)}))
        out = await eventually(state("unhealthy"), within_s=60)
        assert out is not None
        assert "answered no inference" in (out.reason or "")
        hang(False)
        await ready()
    finally:
        task.cancel()
        await asyncio.wait([task])
    await server.until_active("tensorrt_llm", lambda active: active == 0)
