"""Fleet: several real Tritons with one paced engine to load, Redis, a controller and two gateways."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.stack import Stack, running
from emulator.engine import EngineLimits, Pacing
from emulator.triton.repository import EngineSpec, TrtEngineModels, build_emulator_repository
from enginehouse.local.model_servers import weights_folder
from enginehouse.local.paced_card import paced_card
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from model_registry.cards import Goodput, GoodputCard
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Model, Scaling
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import ScalingStatus
from model_registry.store import RegistryStore

MODEL = "chat"
TARGET = "engine"
WEIGHTS = "depot-chat"
TENANT = "house"
SERVERS = 8
SLOTS = 2
STEP_MS = 100.0
LOAD_S = 40.0
TTFT_S = 1.5
GATEWAYS = 2
CONTEXT = 1024
PROMPT_TOKENS, OUTPUT_TOKENS = 40, 10


class Fleet:
    """What runs: `stack` and its Tritons."""

    def __init__(
        self, stack: Stack, store: RegistryStore, tritons: list[TritonProcess], card: GoodputCard
    ) -> None:
        self.stack = stack
        self._store = store
        self.tritons = tritons
        self._card = card

    async def deploy(self, **scaling: float) -> None:
        """The pool of all servers and a deployment in it, in place of the one before."""
        servers = tuple(
            PoolServer(http=one.http_url, grpc=one.grpc_url, metrics=one.metrics_url) for one in self.tritons
        )
        given = {
            "pool": "tritons",
            "max_replicas": SERVERS,
            "ttft_s": TTFT_S,
            "itl_s": 2 * STEP_MS / 1e3,
            "cold_start_s": LOAD_S,
            **scaling,
        }
        version = await self._store.apply(
            [
                Model(name=MODEL, context_length=CONTEXT, tokenizer=str(weights_folder(WEIGHTS))),
                Pool(name="tritons", actuator=TritonActuator(type="triton", servers=servers)),
                Deployment(
                    name="chat-scaled",
                    model=MODEL,
                    target=TARGET,
                    card=self._card,
                    scaling=Scaling.model_validate(given),
                ),
            ]
        )
        await self.stack.until(lambda shown: shown["version"] >= version, "the deployment")

    async def status(self) -> ScalingStatus:
        """Where the deployment stands; all at 0 before anybody has looked."""
        known = (await self._store.load()).scaling.get("chat-scaled")
        return known or ScalingStatus(name="chat-scaled", model=MODEL, pool="tritons")

    async def loaded(self) -> int:
        """How many servers have the engine, by their own word."""
        count = 0
        for triton in self.tritons:
            url = f"{triton.http_url}/v2/models/{TARGET}/ready"
            async with self.stack.session.get(url) as response:
                count += response.status == 200
        return count


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Everything, ready, with nothing loaded; until the block ends. Raises CommandError or BenchError."""
    limits = EngineLimits(max_batch_size=SLOTS, max_seq_len=CONTEXT, max_input_len=CONTEXT - 100)
    path = folder / "pacing.json"
    path.write_text(
        json.dumps({"name": "step", "source": "made up", "prefill_tokens_per_s": 20_000, "base_ms": STEP_MS})
    )
    pacing = Pacing.load(path)
    assert pacing is not None
    engine = EngineSpec(weights_folder(WEIGHTS), limits, pacing=str(path), load_s=LOAD_S)
    repository = folder / "repository"
    await asyncio.to_thread(build_emulator_repository, repository, [TrtEngineModels(engine, name=TARGET)])
    environment = await ensure_environment()
    tritons = [
        TritonProcess(f"triton-{n}", environment, repository, folder / f"triton-{n}.log", load=())
        for n in range(SERVERS)
    ]
    card = _card(pacing, limits)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        stack = Stack(folder, session)
        async with running(stack, gateways=GATEWAYS, tenants=(TENANT,), beside=tritons):
            config = RegistryConfig(redis_url=stack.redis_url)
            redis = connect(config)
            try:
                yield Fleet(stack, RegistryStore.of(redis, config), tritons, card)
            finally:
                await redis.aclose()


def _card(pacing: Pacing, limits: EngineLimits) -> GoodputCard:
    """What the pacing says, for the requests that come."""
    lines = paced_card(pacing, limits, datetime.datetime.now(datetime.UTC).date())
    seconds = lines.overhead_s + lines.step_s * OUTPUT_TOKENS
    goodput = Goodput(
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        ttft_s=TTFT_S,
        itl_s=2 * STEP_MS / 1e3,
        requests_per_s=SLOTS / seconds,
        tokens_per_s=SLOTS * OUTPUT_TOKENS / seconds,
    )
    return lines.model_copy(update={"goodput": goodput})
