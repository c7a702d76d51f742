"""Choices of one long prompt, through a whole gateway to a real Triton: the engine computes it once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from emulator.engine import EngineLimits
from emulator.triton.repository import EngineSpec, TrtEngineModels, build_emulator_repository
from enginehouse.first_key import create_first_key
from enginehouse.gateway_process import GatewayProcess, gateway_process
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from enginehouse.settings import Settings
from gateway.app import make_app
from gateway.discovery import Discovery
from inference.introspection import introspect
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from tests.emulator.triton.small_model import write_small_model
from tests.model_registry.conftest import config, eventually, redis_client, redis_server, until

__all__ = ["config", "redis_client", "redis_server"]

BLOCK, CHOICES, MARK = 32, 8, 7
LIMITS = EngineLimits(
    max_num_tokens=16_384, max_seq_len=1280, max_input_len=1200, kv_blocks=512, tokens_per_block=BLOCK
)
"""One step takes all prompts that have come."""
PROMPT = [5 + n % 300 for n in range(1030)]


class House(NamedTuple):
    """One gateway before one Triton."""

    session: aiohttp.ClientSession
    front: str
    metrics: str
    process: GatewayProcess
    fault: Path

    async def ask(self, prompt: list[int], **more: Any) -> None:
        body = {"model": "m", "prompt": prompt, "max_tokens": 2, "temperature": 0, **more}
        async with self.session.post(f"{self.front}/v1/completions", json=body) as response:
            said = await response.read()
            assert response.status == 200, said

    def hang(self, hangs: bool) -> None:
        """Let the engine stand still at the first token of a prompt of marks, until it is let go on."""
        setting = {"fault": "hang_engine" if hangs else None, "match_token_ids": [MARK] * 4}
        draft = self.fault.with_suffix(".draft")
        draft.write_text(json.dumps(setting))
        draft.replace(self.fault)

    async def dispatched(self, requests: int) -> None:
        """Wait until the gateway has so many with the engine."""
        await until(lambda: self.process.router.ledger.in_flight() >= requests)

    async def reused(self) -> int:
        """Blocks that the engine has reused so far, by its own counter."""
        async with self.session.get(self.metrics) as response:
            lines = (await response.text()).splitlines()
        counted = [one for one in lines if one.startswith("nv_trt_llm_kv_cache") and '="reused"' in one]
        return int(float(counted[0].rpartition(" ")[2]))


@pytest.fixture
async def house(config: RegistryConfig, redis_client: Redis, tmp_path: Path) -> AsyncIterator[House]:
    folder = write_small_model(tmp_path / "model")
    engine = EngineSpec(folder, LIMITS, stats_check_period_ms=10, fault_file=tmp_path / "fault")
    names = build_emulator_repository(tmp_path / "repository", [TrtEngineModels(engine, name="m")])
    triton = TritonProcess(
        "triton", await ensure_environment(), tmp_path / "repository", tmp_path / "log", load=names
    )
    store = RegistryStore.of(redis_client, config)
    async with AsyncExitStack() as stack:
        await triton.start()
        stack.push_async_callback(triton.stop)
        await triton.ready()
        server = ServerRef(http=triton.http_url, grpc=triton.grpc_url, metrics=triton.metrics_url)
        model = Model(name="m", context_length=1280, tokenizer=str(folder))
        await store.apply([model, Deployment(name="d", model="m", servers=(server,))])
        schema = await introspect(server, "m")
        endpoint = Endpoint(
            name="d@triton", deployment="d", model="m", profile="balanced", lane=schema.lane, target="m",
            http=server.http, state="ready", server_schema=schema.as_dict(),
        )  # fmt: skip
        await store.register_endpoint(endpoint, ttl_s=600)
        key = await create_first_key(config, "k", "t", admin=False)
        process = await stack.enter_async_context(gateway_process(Settings(registry=config)))
        discovery = Discovery(process.snapshot, process.readiness, process.metrics)
        app = make_app(process.generation, discovery, list[web.AbstractRouteDef](), 2**20)
        front = await stack.enter_async_context(TestServer(app))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
            )
        )
        found = House(
            session, str(front.make_url("/")).rstrip("/"), triton.metrics_url, process, tmp_path / "fault"
        )

        async def serves() -> bool:
            return "m" in process.snapshot().endpoints

        await eventually(serves)
        yield found


async def test_eight_choices_have_their_prompt_computed_once(house: House) -> None:
    """Seven reuse every whole block of it. A machine that stood still for 100 ms gets another try."""
    wanted, seen = (CHOICES - 1) * (len(PROMPT) // BLOCK), list[int]()
    for number in range(3):
        house.hang(True)
        busy = asyncio.create_task(house.ask([MARK] * 40))
        await house.dispatched(1)
        await asyncio.sleep(0.1)  # until the engine stands still, for what then comes to begin together
        before = await house.reused()
        burst = asyncio.create_task(house.ask([100 + number, *PROMPT[1:]], n=CHOICES, stream=True))
        await house.dispatched(2)
        await asyncio.sleep(0.02)
        house.hang(False)
        await burst
        await asyncio.sleep(0.1)  # the engine's counters are refreshed every 10 ms
        seen.append(await house.reused() - before)
        await busy
        if seen[-1] == wanted:
            break
    assert seen[-1] == wanted, seen
