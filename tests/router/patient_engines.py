"""Engines that answer when they are let, behind one router, and what waits there for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.errors import InferenceError
from inference.push_http import Timeouts
from inference.request import InferenceRequest, Usage
from inference.sink import Call, FinishReason
from model_registry.entities import Endpoint, Model
from model_registry.knobs import BUILT_IN, Knobs
from model_registry.snapshot import Snapshot, Stored
from model_registry.tenants import Priority
from router.answer import Outcome
from router.attempts import Finished, Router
from router.config import RouterConfig
from router.job import Job
from router.profiles import Wish
from telemetry.config import TelemetryConfig
from telemetry.request_trace import AttemptTrace
from telemetry.tracing import Tracing
from tests.router.two_engines import SCHEMA

MODEL = Model(name="m", context_length=10_000)


class Engine:
    """A server that answers one token, once it is let; counts what is with it."""

    def __init__(self) -> None:
        self.served: list[int] = []
        """First prompt ids, in the order in which they came."""
        self.with_it = 0
        self.most = 0
        self.faults: list[str] = []
        self.came = asyncio.Condition()
        self._permits = asyncio.Semaphore(0)
        self._runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True))

    async def start(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        self.let(10**6)
        await self._runner.cleanup()

    def let(self, requests: int) -> None:
        """So many more may be answered."""
        for _ in range(min(requests, 10_000)):
            self._permits.release()

    async def until(self, requests: int) -> None:
        """Wait until so many have come."""
        async with self.came, asyncio.timeout(5):
            await self.came.wait_for(lambda: len(self.served) >= requests)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        self.with_it += 1
        self.most = max(self.most, self.with_it)
        try:
            async with self.came:
                self.served.append(int(asked["input_ids"][0]))
                self.came.notify_all()
            if self.faults:
                self.faults.pop()
                return web.json_response({"error": "Exceeds maximum queue size"}, status=503)
            await self._permits.acquire()
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            event = {"model_name": "x", "output_ids": 7, "sequence_length": 1}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            return response
        finally:
            self.with_it -= 1


class Collected:
    """An answer that keeps its token ids."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.started = False
        self._outcome: asyncio.Future[Outcome] | None = None

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._outcome = outcome

    def attempt_runs(self, call: Call) -> None: ...

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        return None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        return None

    def head(self) -> None: ...

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        self.ids += ids
        self.started = True

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage) -> None:
        assert self._outcome is not None
        self._outcome.set_result((reason, usage))

    def lost(self, error: InferenceError) -> None:
        assert self._outcome is not None
        self._outcome.set_result(error)


class Timed(Collected):
    """As the gateway's own answers, it takes the time of its first token."""

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        super().attempt_begins(trace, outcome)
        self._trace = trace

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        self._trace.first_token()
        super().tokens(ids, log_probs)


class Observed:
    """What the router told."""

    def __init__(self) -> None:
        self.queued_now = 0
        self.tokens_now = 0
        self.waits: list[float] = []
        self.refusals: list[str] = []
        self.were_late: list[bool] = []
        self.changed = asyncio.Event()

    def attempt(self, endpoint: Endpoint, outcome: str) -> None: ...

    def retried(self, wish: Wish) -> None: ...

    def continued(self, wish: Wish) -> None: ...

    def queued(self, wish: Wish, tokens: int) -> None:
        self.queued_now += 1
        self.tokens_now += tokens
        self.changed.set()

    def unqueued(self, wish: Wish, tokens: int, waited_s: float) -> None:
        self.queued_now -= 1
        self.tokens_now -= tokens
        self.changed.set()
        self.waits.append(waited_s)

    def first_token(self, wish: Wish, *, late: bool) -> None:
        self.were_late.append(late)

    def refused(self, wish: Wish, reason: str) -> None:
        self.refusals.append(reason)


class Fleet:
    """Engines behind one router."""

    def __init__(self, knobs: Mapping[str, Knobs], config: RouterConfig | None = None) -> None:
        self.engines: list[Engine] = []
        self.endpoints: list[Endpoint] = []
        self.others: list[Stored] = []
        """What else is in the registry."""
        self.snapshot = Snapshot.of(1, [MODEL])
        self.observed = Observed()
        self.clients = ModelClients(Timeouts(connect_s=1, first_byte_s=5, idle_s=5))
        self.router = Router(
            config or RouterConfig(no_endpoint_timeout_s=0.3),
            self.clients,
            lambda: self.snapshot,
            self.observed,
            Adapters(0),
            lambda profile: {**BUILT_IN, **knobs}[profile],
        )
        self.tasks: list[asyncio.Task[Finished]] = []
        self.jobs: list[Job] = []
        self._tracing = Tracing(TelemetryConfig())

    async def engine(
        self, slots: int, profile: str = "balanced", faults: Sequence[str] = (), **stated: int
    ) -> Engine:
        """One more engine, registered."""
        engine = Engine()
        engine.faults = list(faults)
        url = await engine.start()
        self.engines.append(engine)
        name = f"{profile}-{len(self.engines)}"
        fields: dict[str, Any] = {
            "name": name, "deployment": name, "model": "m", "profile": profile, "lane": "tensorrt_llm",
            "target": "tensorrt_llm", "http": url, "server_schema": {**SCHEMA.as_dict(), **stated},
            "state": "ready", "max_concurrency": slots,
        }  # fmt: skip
        self.register(*self.endpoints, Endpoint.model_validate(fields))
        return engine

    def register(self, *endpoints: Endpoint) -> None:
        self.endpoints = list(endpoints)
        self.snapshot = Snapshot.of(self.snapshot.version + 1, [MODEL, *endpoints, *self.others])
        self.router.registry_changed()

    def ask(
        self,
        first_id: int,
        tenant: str = "t",
        weight: float = 1.0,
        profile: str = "balanced",
        priority: Priority = "standard",
        max_tokens: int = 1,
        answer: Collected | None = None,
        **more: Any,
    ) -> asyncio.Task[Finished]:
        """A request in a task of its own; `more` of its job."""
        request = InferenceRequest(
            id="r", model="m", stream=True, max_tokens=max_tokens, prompt_ids=[first_id] * 1000, end_id=2
        )
        job = Job(
            request,
            Wish(MODEL, profile, "default"),
            1001,
            self._tracing.begin(None, None),
            tenant=tenant,
            weight=weight,
            priority=priority,
            output_tokens=1,
            **more,
        )
        self.jobs.append(job)
        task = asyncio.create_task(self.router.run(job, answer or Collected()))
        self.tasks.append(task)
        return task

    async def waiting(self, requests: int) -> None:
        """Wait until so many wait in the queue."""
        async with asyncio.timeout(5):
            while self.observed.queued_now != requests:
                self.observed.changed.clear()
                await self.observed.changed.wait()


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    made = Fleet(getattr(request, "param", {}))
    yield made
    for engine in made.engines:
        engine.let(1000)
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    assert (made.observed.queued_now, made.observed.tokens_now) == (0, 0)
    assert made.router.waiting.total() == 0
    assert all(made.router.queueing.places.requests(one.name) == 0 for one in made.endpoints)
    assert made.router.ledger.in_flight() == 0
    await made.clients.close()
    for engine in made.engines:
        await engine.stop()
