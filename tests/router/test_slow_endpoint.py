"""Live: one of four servers is slow, and is left within two seconds; one that fails too often, likewise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from aiohttp import web

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.push_http import Timeouts
from inference.request import InferenceRequest
from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.attempts import Router
from router.config import RetryConfig, RouterConfig
from router.errors import AttemptsExhaustedError
from router.job import Job
from router.profiles import Wish
from telemetry.config import TelemetryConfig
from telemetry.tracing import Tracing
from tests.router.two_engines import END, EXPECTED, MODEL, SCHEMA, Collected, Engine, Observed


class PacedEngine(Engine):
    """Its first token takes `delay_s`."""

    def __init__(self, delay_s: float = 0.01) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.fails_every_other = False
        self.asked_at_s: list[float] = []

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked_at_s.append(monotonic())
        fails = self.fails_every_other and len(self.asked_at_s) % 2
        await asyncio.sleep(self.delay_s)
        if fails:
            return web.json_response({"error": "out of luck"}, status=500)
        return await super()._handle(request)


class Watched(Observed):
    """Also takes what the queue tells."""

    def queued(self, wish: Wish, tokens: int) -> None: ...

    def unqueued(self, wish: Wish, tokens: int, waited_s: float) -> None: ...

    def refused(self, wish: Wish, reason: str) -> None: ...


class Servers:
    """Engines behind one router."""

    def __init__(self, engines: Sequence[PacedEngine], urls: Sequence[str], config: RouterConfig) -> None:
        self.engines = engines
        self.endpoints = [
            Endpoint(
                name=f"e{n}",
                deployment="d",
                model="m",
                profile="balanced",
                lane="tensorrt_llm",
                target="tensorrt_llm",
                http=url,
                server_schema=SCHEMA.as_dict(),
                state="ready",
            )
            for n, url in enumerate(urls)
        ]
        self.snapshot = Snapshot.of(1, [MODEL, *self.endpoints])
        self.observed = Watched()
        self.clients = ModelClients(Timeouts(connect_s=1, first_byte_s=20, idle_s=20))
        self.router = Router(config, self.clients, lambda: self.snapshot, self.observed, Adapters(0))
        self._tracing = Tracing(TelemetryConfig())

    def job(self, profile: str = "balanced", deadline_s: float | None = None) -> Job:
        request = InferenceRequest(id="r", model="m", stream=True, max_tokens=6, prompt_ids=[100], end_id=END)
        wish = Wish(MODEL, profile, "default")
        return Job(request, wish, 10, self._tracing.begin(None, None), deadline_s=deadline_s)

    async def load(self, clients: int, seconds: float) -> int:
        """Clients that ask again as soon as they are answered; how many answers there were."""
        until_s, answers = monotonic() + seconds, 0

        async def one() -> None:
            nonlocal answers
            while monotonic() < until_s:
                answer = Collected()
                await self.router.run(self.job(), answer)
                assert answer.ids == EXPECTED
                answers += 1

        await asyncio.gather(*(one() for _ in range(clients)))
        return answers


@asynccontextmanager
async def serving(*engines: PacedEngine, **config: object) -> AsyncIterator[Servers]:
    urls = [await engine.start() for engine in engines]
    servers = Servers(engines, urls, RouterConfig.model_validate({"no_endpoint_timeout_s": 0.5, **config}))
    yield servers
    assert servers.router.ledger.in_flight() == 0
    await servers.clients.close()
    for engine in engines:
        await engine.runner.cleanup()


async def test_one_slow_endpoint_of_four_is_left_within_two_seconds() -> None:
    """It was as fast as the others; then it takes 1.5 s to a first token."""
    engines = [PacedEngine() for _ in range(4)]
    async with serving(*engines) as servers:
        await servers.load(12, 0.5)
        slow = engines[0]
        slow.delay_s, became_slow_s = 1.5, monotonic()
        await servers.load(12, 4)
        late = [at_s - became_slow_s for at_s in slow.asked_at_s if at_s > became_slow_s]
        assert late, "it was not asked at all"
        assert max(late) < 2.0, f"still asked after {max(late):.2f} s"
        assert (servers.router.paces.why_left("e0") or "").startswith("slow: ")
        assert all(servers.router.paces.why_left(one.name) is None for one in servers.endpoints[1:])


async def test_it_is_left_as_soon_by_few_clients() -> None:
    """While it keeps one of four waiting the policy goes elsewhere: it is asked again only after that."""
    engines = [PacedEngine() for _ in range(4)]
    async with serving(*engines) as servers:
        await servers.load(4, 0.5)
        slow = engines[0]
        slow.delay_s, became_slow_s = 1.5, monotonic()
        await servers.load(4, 4)
        late = [at_s - became_slow_s for at_s in slow.asked_at_s if at_s > became_slow_s]
        assert late, "it was not asked at all"
        assert max(late) < 2.0, f"still asked after {max(late):.2f} s"


async def test_an_endpoint_that_fails_every_other_time_is_left() -> None:
    """No breaker opens: the failures are never in a row."""
    engines = [PacedEngine() for _ in range(4)]
    async with serving(*engines) as servers:
        engines[0].fails_every_other = True
        await servers.load(8, 1.5)
        assert (servers.router.paces.why_left("e0") or "").startswith("failing: ")
        now_s = asyncio.get_running_loop().time()
        assert servers.router.ledger.of("e0").breaker.state(now_s, servers.router.config) == "closed"


async def test_a_bad_endpoint_is_better_than_none() -> None:
    async with serving(PacedEngine(), PacedEngine()) as servers:
        await servers.load(6, 0.3)
        servers.engines[0].delay_s = 0.8
        await servers.load(6, 1.5)
        assert servers.router.paces.why_left("e0") is not None
        down = servers.endpoints[1].model_copy(update={"state": "unhealthy"})
        servers.snapshot = Snapshot.of(2, [MODEL, servers.endpoints[0], down])
        servers.router.registry_changed()
        assert (await servers.router.run(servers.job(), Collected())).endpoint.name == "e0"


async def test_a_well_endpoint_that_is_full_is_waited_for() -> None:
    """What the bad one is spared does not come back to it once the others have no room."""
    async with serving(PacedEngine(), PacedEngine()) as servers:
        await servers.load(6, 0.3)
        bad, well = servers.engines
        bad.delay_s = 0.8
        await servers.load(6, 1.5)
        assert servers.router.paces.why_left("e0") is not None
        narrow = [one.model_copy(update={"max_concurrency": 1}) for one in servers.endpoints]
        servers.snapshot = Snapshot.of(2, [MODEL, *narrow])
        servers.router.registry_changed()
        well.delay_s, asked = 0.1, len(bad.asked)
        jobs = [servers.router.run(servers.job(), Collected()) for _ in range(4)]
        assert {finished.endpoint.name for finished in await asyncio.gather(*jobs)} == {"e1"}
        assert len(bad.asked) == asked


async def test_retries_beyond_the_budget_are_told() -> None:
    """The fleet is down, and is not asked `max_attempts` times by everybody."""
    config = RetryConfig(ratio=0, floor=2)
    async with serving(PacedEngine(), PacedEngine(), retries=config, breaker_failures=1000) as servers:
        for engine in servers.engines:
            engine.faults = ["drop"] * 100
        for _ in range(5):
            with pytest.raises(AttemptsExhaustedError) as caught:
                await servers.router.run(servers.job(), Collected())
        assert "retry budget" in str(caught.value)
        assert sum(len(engine.asked) for engine in servers.engines) == 5 + 2
        assert servers.observed.retries == 2


async def test_no_retry_begins_after_the_deadline() -> None:
    async with serving(PacedEngine(0.2), PacedEngine(0.2)) as servers:
        for engine in servers.engines:
            engine.faults = ["drop"] * 100
        with pytest.raises(AttemptsExhaustedError, match="deadline"):
            await servers.router.run(servers.job(deadline_s=monotonic() + 0.1), Collected())
        assert sum(len(engine.asked) for engine in servers.engines) == 1
