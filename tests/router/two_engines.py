"""Two engines behind one router: servers with real sockets whose next answers can be told to go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.errors import InferenceError
from inference.push_http import Timeouts
from inference.request import Guide, InferenceRequest, Usage
from inference.schema import Schema, Tensor
from inference.sink import Call, FinishReason
from model_registry.entities import Endpoint, Model
from model_registry.snapshot import Snapshot
from router.answer import Outcome
from router.attempts import Finished, Router
from router.config import RouterConfig
from router.job import Job
from router.profiles import Wish
from telemetry.config import TelemetryConfig
from telemetry.request_trace import AttemptTrace, RequestTrace
from telemetry.tracing import Tracing

END = 2
EXPECTED = [101, 102, 103, 104, 105, 106]
"""What the engine answers to 100 with six tokens."""
MODEL = Model(name="m", context_length=1000)
SCHEMA = Schema(
    lane="tensorrt_llm",
    target="tensorrt_llm",
    inputs={
        name: Tensor("INT32", (-1, -1))
        for name in ("input_ids", "input_lengths", "request_output_len", "end_id")
    }
    | {"streaming": Tensor("BOOL", (-1, 1))},
    outputs={"output_ids": Tensor("INT32", (-1, -1, -1)), "sequence_length": Tensor("INT32", (-1, -1))},
    decoupled=True,
    max_batch_size=8,
)


class Engine:
    """A server that counts upwards from the last prompt id; `faults` says how its next answers go wrong."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True))

    async def start(self) -> str:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        host, port = self.runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        if fault == "busy":
            return web.json_response({"error": "Exceeds maximum queue size"}, status=503)
        if fault == "refuse":
            return web.json_response(
                {"error": "Prompt length (9) exceeds maximum input length (5)"}, status=400
            )
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        last = int(asked["input_ids"][-1])
        wanted = int(asked["request_output_len"])
        for n in range(1, wanted + 1):
            if fault == "hang" and n == 3:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            if fault == "error" and n == 3:
                await response.write(b'data: {"error": "Executor failed"}\n\n')
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            event = {"model_name": "x", "output_ids": last + n, "sequence_length": n}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
            if fault == "break" and n == 2:
                assert request.transport is not None
                await asyncio.sleep(0.02)  # so that the client reads what was written
                request.transport.abort()
                return response
        return response


class Collected:
    """An answer that keeps what it is given."""

    def __init__(self, whole: bool = False) -> None:
        self.ids: list[int] = []
        self.started = False
        self.some = asyncio.Event()
        self._whole = whole
        self._known = 0
        self._outcome: asyncio.Future[Outcome] | None = None
        self._trace: AttemptTrace | None = None

    def attempt_begins(self, trace: AttemptTrace, outcome: asyncio.Future[Outcome]) -> None:
        self._trace = trace
        self._outcome = outcome
        if self._whole:
            self.ids = []

    def attempt_runs(self, call: Call) -> None: ...

    def ended(self, request: InferenceRequest) -> FinishReason | None:
        return "length" if self.ids and len(self.ids) - self._known >= request.max_tokens else None

    def continuation(self, request: InferenceRequest) -> InferenceRequest | None:
        fresh = self.ids[self._known :]
        self._known = len(self.ids)
        assert request.prompt_ids is not None
        return InferenceRequest(
            id=request.id,
            model=request.model,
            stream=True,
            max_tokens=request.max_tokens - len(fresh),
            prompt_ids=request.prompt_ids + fresh,
            end_id=END,
        )

    def head(self) -> None:
        assert self._trace is not None
        self._trace.answered()

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        assert self._trace is not None
        self._trace.first_token()
        self.ids += ids
        self.started = not self._whole
        self.some.set()

    def text(self, delta: str, tokens: int | None = None) -> None: ...

    def data(self, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage) -> None:
        self._settle((reason, usage))

    def lost(self, error: InferenceError) -> None:
        self._settle(error)

    def _settle(self, outcome: Outcome) -> None:
        assert self._outcome is not None
        assert not self._outcome.done()
        self._outcome.set_result(outcome)


class Observed:
    """What the loop told of its attempts."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.retries = 0
        self.continued_streams = 0

    def attempt(self, endpoint: Endpoint, outcome: str) -> None:
        self.outcomes.append((endpoint.name, outcome))

    def retried(self, wish: Wish) -> None:
        self.retries += 1

    def first_token(self, wish: Wish, *, late: bool) -> None: ...

    def continued(self, wish: Wish) -> None:
        self.continued_streams += 1


class Fleet:
    """Two engines behind one router; a picks first by load, since b starts out loaded."""

    def __init__(self, a: Engine, b: Engine, urls: tuple[str, str], config: RouterConfig) -> None:
        self.a, self.b = a, b
        self.endpoints = [self._endpoint(name, url) for name, url in zip("ab", urls, strict=True)]
        self.snapshot = Snapshot.of(1, [MODEL, *self.endpoints])
        self.observed = Observed()
        self.clients = ModelClients(Timeouts(connect_s=1, first_byte_s=5, idle_s=5))
        self.router = Router(config, self.clients, lambda: self.snapshot, self.observed, Adapters(0))
        self.router.ledger.of("b").prefill_tokens = 10**6
        self._tracing = Tracing(TelemetryConfig())

    def register(self, *endpoints: Endpoint) -> None:
        """Make these the registered ones."""
        self.snapshot = Snapshot.of(self.snapshot.version + 1, [MODEL, *endpoints])
        self.router.registry_changed()

    async def run(
        self,
        answer: Collected,
        tokens: int = 6,
        model: Model = MODEL,
        guide: Guide | None = None,
        spare: Callable[[Endpoint], bool] | None = None,
    ) -> Finished:
        request = InferenceRequest(
            id="r", model=model.name, stream=True, max_tokens=tokens, prompt_ids=[100], end_id=END
        )
        request.guide = guide
        job = Job(request, Wish(model, "balanced", "default"), 10, self.trace(), spare=spare)
        async with asyncio.timeout(10):
            return await self.router.run(job, answer)

    def trace(self) -> RequestTrace:
        return self._tracing.begin(None, None)

    def _endpoint(self, name: str, url: str) -> Endpoint:
        return Endpoint(
            name=name,
            deployment=name,
            model="m",
            profile="balanced",
            lane="tensorrt_llm",
            target="tensorrt_llm",
            http=url,
            server_schema=SCHEMA.as_dict(),
            state="ready",
        )


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    config = RouterConfig(no_endpoint_timeout_s=0.5, **getattr(request, "param", {}))
    a, b = Engine(), Engine()
    made = Fleet(a, b, (await a.start(), await b.start()), config)
    yield made
    assert made.router.ledger.in_flight() == 0, "a lease was not given back"
    await made.clients.close()
    await a.runner.cleanup()
    await b.runner.cleanup()
