"""KV events from an engine's cache to the decision: two whole gateways on one Redis, before real engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from emulator.engine import EngineLimits
from emulator.openai_server import ServedModel, create_app
from enginehouse.first_key import create_first_key
from enginehouse.gateway_process import GatewayProcess, gateway_process
from enginehouse.settings import Settings
from gateway.app import make_app
from gateway.discovery import Discovery
from inference.request import InferenceRequest
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from router.config import RouterConfig
from router.kv_feeds import KvFeed
from router.pick import Decision
from router.view import EndpointView
from tests.emulator.triton.small_model import write_small_model
from tests.model_registry.conftest import config, patient, redis_client, redis_server, until

__all__ = ["config", "redis_client", "redis_server"]

BLOCK = 32
FIRST, SECOND = [5 + n % 300 for n in range(600)], [7 + n % 211 for n in range(990)]
"""Of 18 whole blocks, and of 30; the cache holds 32."""
SHORT = [11, 13]
"""Of which nothing is kept."""
LIMITS = EngineLimits(
    max_seq_len=1024, max_input_len=1000, kv_blocks=32, tokens_per_block=BLOCK, event_buffer_max_size=4096
)
NAMES = ("d@one", "d@two")


class House:
    """Two engines, two gateways before them, and a key."""

    def __init__(
        self,
        urls: Sequence[str],
        models: Sequence[ServedModel],
        gateways: Sequence[GatewayProcess],
        key: str,
    ) -> None:
        self.engines = urls
        self.models = models
        self.gateways = gateways
        self._headers = {"Authorization": f"Bearer {key}"}

    async def send(self, url: str, prompt: Sequence[int]) -> None:
        """A request of one token, to a gateway or past all of them to an engine."""
        body = {"model": "m", "prompt": list(prompt), "max_tokens": 1, "temperature": 0, "stream": True}
        async with (
            aiohttp.ClientSession(headers=self._headers) as session,
            session.post(f"{url}/v1/completions", json=body) as response,
        ):
            assert response.status == 200, await response.text()
            assert b"[DONE]" in await response.read()

    def cached(self, gateway: int, prompt: Sequence[int]) -> list[int]:
        """Blocks of a prompt that a gateway would count on at each engine, if it came now."""
        return [view.cached_tokens // BLOCK for view in self._views(gateway, prompt)]

    def idle(self, gateway: int) -> bool:
        """Whether a gateway has no request at any engine, and knows that no other gateway has one."""
        return all(view.requests == 0 for view in self._views(gateway, SHORT))

    def _views(self, gateway: int, prompt: Sequence[int]) -> list[EndpointView]:
        router, snapshot = self.gateways[gateway].router, self.gateways[gateway].snapshot()
        endpoints = snapshot.endpoints["m"]
        request = InferenceRequest("r", "m", True, 1, prompt_ids=list(prompt))
        ask = router.deciding.ask(request, len(prompt) + 1, "", endpoints)
        now_s = asyncio.get_running_loop().time()
        choices = router.deciding.candidates("m", endpoints, None, ask, now_s)
        seen = {choice.endpoint.name: choice.view for choice in choices}
        return [seen[name] for name in NAMES]

    def feed(self, gateway: int, engine: int) -> KvFeed | None:
        process = self.gateways[gateway]
        endpoints = {one.name: one for one in process.snapshot().endpoints.get("m", ())}
        one = endpoints.get(NAMES[engine])
        return None if one is None else process.router.deciding.kv_feeds.of(one)

    def urls_read(self, gateway: int) -> set[str]:
        return self.gateways[gateway].kv_reading.reads

    def hears(self, gateway: int, engine: int) -> bool:
        """Whether a gateway has heard all that the engine's cache did since it was made."""
        feed = self.feed(gateway, engine)
        return feed is not None and feed.blocks.is_whole

    def gaps(self) -> int:
        """How often any gateway missed something of an engine."""
        feeds = [self.feed(gateway, engine) for gateway in (0, 1) for engine in (0, 1)]
        return sum(feed.blocks.gaps for feed in feeds if feed is not None)

    def readers(self) -> list[int]:
        return sorted(len(process.kv_reading.reads) for process in self.gateways)


@pytest.fixture
async def house(config: RegistryConfig, redis_client: Redis, tmp_path: Path) -> AsyncIterator[House]:
    folder = write_small_model(tmp_path / "model")
    store = RegistryStore.of(redis_client, patient(config))
    key = await create_first_key(patient(config), "k", "t", admin=False)
    async with AsyncExitStack() as stack:
        urls = []
        models = [ServedModel.load("m", folder, LIMITS) for _ in NAMES]
        for model in models:
            engine = TestServer(create_app([model]))
            await stack.enter_async_context(engine)
            urls.append(str(engine.make_url("/")).rstrip("/"))
        servers = tuple(ServerRef(http=url) for url in urls)
        await store.apply(
            [
                Model(name="m", context_length=1024, tokenizer=str(folder)),
                Deployment(name="d", model="m", kv_events="trtllm-serve", servers=servers),
            ]
        )
        for name, url in zip(NAMES, urls, strict=True):
            endpoint = Endpoint(
                name=name, deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
                http=url, state="ready", kv_events="trtllm-serve", server_schema={"tokens_per_block": BLOCK},
            )  # fmt: skip
            await store.register_endpoint(endpoint, ttl_s=600)
        settings = Settings(registry=config, router=RouterConfig(kv_events_pause_s=0.05))
        gateways = [await stack.enter_async_context(gateway_process(settings)) for _ in range(2)]
        found = House(urls, models, gateways, key)
        await until(lambda: all(found.hears(g, e) for g in (0, 1) for e in (0, 1)), within_s=30)
        yield found


async def listening(process: GatewayProcess, stack: AsyncExitStack) -> str:
    """A gateway's front, on a port of its own."""
    discovery = Discovery(process.snapshot, process.readiness, process.metrics)
    server = TestServer(make_app(process.generation, discovery, list[web.AbstractRouteDef](), 2**20))
    await stack.enter_async_context(server)
    return str(server.make_url("/")).rstrip("/")


async def test_what_others_sent_is_known_and_what_was_evicted_is_forgotten(house: House) -> None:
    """At both gateways, of which one reads each engine and the other is told; neither had sent anything."""
    whole = len(FIRST) // BLOCK
    await house.send(house.engines[1], FIRST)
    await until(lambda: house.cached(0, FIRST) == house.cached(1, FIRST) == [0, whole])
    await house.send(house.engines[1], SECOND)
    await until(lambda: house.cached(0, SECOND) == house.cached(1, SECOND) == [0, len(SECOND) // BLOCK])
    left = house.cached(0, FIRST)
    assert left == house.cached(1, FIRST)
    assert left[1] <= LIMITS.kv_blocks - len(SECOND) // BLOCK
    assert sum(house.readers()) == 2, "each engine has one reader"
    assert not house.gaps()


async def test_where_a_reader_ends_another_gateway_goes_on_from_there(house: House) -> None:
    """It has followed all along: nothing is forgotten, and what comes later finds its parents."""
    await house.send(house.engines[1], FIRST[: 10 * BLOCK + 5])
    await until(lambda: house.cached(0, FIRST) == house.cached(1, FIRST) == [0, 10])
    ends = next(n for n in (0, 1) if house.engines[1] in house.urls_read(n))
    await house.gateways[ends].supervisor.close()
    await house.send(house.engines[1], FIRST)
    await until(lambda: house.cached(1 - ends, FIRST) == [0, 18])
    assert len(house.gateways[1 - ends].kv_reading.reads) == 2
    assert house.hears(1 - ends, 1)
    assert not house.gaps()


async def test_where_somebody_else_takes_events_away_what_was_known_is_forgotten(house: House) -> None:
    """By all gateways; what is told afterwards is known, and what is not told may be there."""
    await house.send(house.engines[1], FIRST)
    await until(lambda: house.cached(0, FIRST) == house.cached(1, FIRST) == [0, 18])
    async with aiohttp.ClientSession() as session:
        for number in range(100):
            stealing = asyncio.create_task(session.post(f"{house.engines[1]}/kv_cache_events"))
            await house.send(house.engines[1], [9, number, *range(11, 11 + BLOCK)])
            (await stealing).close()
            if house.gaps():
                break
    await house.send(house.engines[1], [8, *range(11, 11 + 2 * BLOCK)])
    await until(lambda: not house.hears(0, 1) and not house.hears(1, 1))
    await until(
        lambda: all(house.cached(g, [8, *range(11, 11 + 2 * BLOCK)])[1] == 2 for g in (0, 1)), within_s=20
    )
    assert house.cached(0, FIRST) == house.cached(1, FIRST) == [0, 0]


async def test_a_prompt_goes_where_another_gateway_sent_it(house: House) -> None:
    """The upstream makes the tokens; the gateway knows them by the model's tokenizer."""
    async with AsyncExitStack() as stack:
        fronts = [await listening(process, stack) for process in house.gateways]
        await house.send(fronts[0], FIRST)
        counted = [house.cached(0, FIRST)]
        (there,) = [place for place, blocks in enumerate(counted[0]) if blocks]
        for process in house.gateways:
            process.router.deciding.gossip = None  # so that only events can tell
        await until(lambda: house.cached(1, FIRST)[there] == len(FIRST) // BLOCK)
        router = house.gateways[1].router

        async def decided(prompt: Sequence[int]) -> Decision:
            await until(lambda: house.idle(1))  # clients are told before, and other gateways later
            await house.send(fronts[1], prompt)
            (latest,) = router.decisions.find(None, "m", 1)
            assert latest.considered is not None
            return latest.considered.decision

        # Without a slot of this endpoint it would send the prompt to the other.
        async with asyncio.timeout(30):
            while NAMES[there] not in (await decided(SHORT)).scores:
                pass
        decision = await decided([*FIRST, 9])
        assert decision.endpoint is not None
        assert decision.endpoint.name == NAMES[there], decision


async def test_eight_at_once_have_their_common_prefix_computed_once(house: House) -> None:
    """Read off the engines' own counters; both are idle, and could each have taken four of them. A machine
    that stood still for 100 ms gets another try."""
    blocks, seen = 18, list[list[int]]()
    async with AsyncExitStack() as stack:
        front = await listening(house.gateways[0], stack)
        for number in range(3):
            before = [model.engine.stats().kv_reused_blocks for model in house.models]
            prefix = [100 + number, *FIRST[1 : blocks * BLOCK]]
            await asyncio.gather(*(house.send(front, [*prefix, 300 + n, 7, 9]) for n in range(8)))
            after = [model.engine.stats().kv_reused_blocks for model in house.models]
            seen.append(sorted(now - then for now, then in zip(after, before, strict=True)))
            if seen[-1] == [0, 7 * blocks]:
                break
    assert seen[-1] == [0, 7 * blocks], seen
