"""The attempt loop against real sockets: what moves on, what goes on elsewhere, and what ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from inference.adapters import Adapters
from inference.client import ModelClients
from inference.errors import (
    InferenceError,
    RequestRefusedError,
    StreamBrokenError,
    UnsupportedFeatureError,
)
from inference.push_http import Timeouts
from inference.request import Guide, InferenceRequest, Usage
from inference.schema import Schema, Tensor
from inference.sink import Call, FinishReason
from model_registry.entities import Endpoint, Model
from model_registry.snapshot import Snapshot
from router.answer import Outcome
from router.attempts import Finished, Router
from router.breaker import Breaker
from router.config import RouterConfig
from router.errors import AttemptsExhaustedError, NoEndpointsError
from router.job import Job
from router.profiles import Wish
from telemetry.config import TelemetryConfig
from telemetry.request_trace import AttemptTrace, RequestTrace
from telemetry.tracing import Tracing

END = 2
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


EXPECTED = [101, 102, 103, 104, 105, 106]


async def test_the_least_loaded_endpoint_answers(fleet: Fleet) -> None:
    """One attempt, in order, nothing retried."""
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.reason, finished.endpoint.name) == (EXPECTED, "length", "a")
    assert (finished.attempts, finished.continued, fleet.observed.retries) == (1, 0, 0)


@pytest.mark.parametrize("fault", ["busy", "drop"])
async def test_a_safe_failure_before_the_first_token_moves_on(fleet: Fleet, fault: str) -> None:
    """The client never learns of it."""
    fleet.a.faults = [fault]
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.endpoint.name, finished.attempts) == (EXPECTED, "b", 2)
    assert fleet.observed.retries == 1


async def test_the_first_token_moves_the_charge_and_teaches_the_forecast(fleet: Fleet) -> None:
    """A stream that hangs after its first tokens weighs on decode alone, and is given back when cut."""
    fleet.a.faults = ["hang"]
    answer = Collected()
    load, forecast = fleet.router.ledger.of("a"), fleet.router.deciding.forecasts.of("a")
    running = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
    assert (load.prefill_tokens, load.decoding, load.decode_prompt_tokens) == (0, 1, 1)
    assert forecast.ttft_age_s(asyncio.get_running_loop().time()) is not None
    running.cancel()
    await asyncio.wait([running])
    assert (load.requests, load.decoding, load.decode_prompt_tokens) == (0, 0, 0)


async def test_a_conversation_returns_to_where_its_beginning_was_computed(fleet: Fleet) -> None:
    """Though the other endpoint has less to do; another class's does not, nor a short one's."""
    fleet.router.ledger.of("b").prefill_tokens = 0
    beginning = list(range(200))

    async def served_by(ids: list[int], tenant: str) -> str:
        request = InferenceRequest("r", "m", True, 1, prompt_ids=ids, end_id=END)
        job = Job(request, Wish(MODEL, "balanced", "default"), len(ids) + 1, fleet.trace())
        job.isolation_class = tenant
        async with asyncio.timeout(5):
            return (await fleet.router.run(job, Collected())).endpoint.name

    home = await served_by(beginning, "t")
    fleet.router.ledger.of(home).requests += 1
    served = [await served_by([*beginning, 7, 8, 9], tenant) for tenant in ("t", "u")]
    fleet.router.ledger.of(home).requests -= 1
    assert (served[0], served[1] != home) == (home, True)


async def test_a_first_token_is_expected_after_what_is_ahead(fleet: Fleet) -> None:
    """At the soonest endpoint, or at the one that is asked for; alone, it would come sooner.

    0.03 s, and 2,000 tokens at 20,000/s, 3 % dearer by the 1,000 that stand before each in the mean.
    """
    request = InferenceRequest("r", "m", True, 1, prompt_ids=[1] * 2000, end_id=END)
    job = Job(request, Wish(MODEL, "balanced", "default"), 2001, fleet.trace())
    soonest, at_b = fleet.router.picker.expected(job), fleet.router.picker.expected(job, "b")
    assert soonest.ttft_s == soonest.isolated_s == at_b.isolated_s == pytest.approx(0.133, abs=0.0005)
    assert at_b.ttft_s == pytest.approx(50.133, abs=0.0005)
    fleet.register()
    assert fleet.router.picker.expected(job).ttft_s == float("inf")


async def test_what_the_server_refuses_is_not_tried_elsewhere(fleet: Fleet) -> None:
    """The request itself is wrong, and would be wrong everywhere."""
    fleet.a.faults = ["refuse"]
    with pytest.raises(RequestRefusedError):
        await fleet.run(Collected())
    assert fleet.b.asked == []


async def test_a_broken_stream_goes_on_where_it_stopped(fleet: Fleet) -> None:
    """The other endpoint gets prompt and answer so far; the tokens are those of an unbroken answer."""
    fleet.a.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer)
    assert answer.ids == EXPECTED
    assert (finished.endpoint.name, finished.attempts, finished.continued) == ("b", 2, 1)
    assert fleet.b.asked[0]["input_ids"] == [100, 101, 102]
    assert fleet.b.asked[0]["request_output_len"] == 4


async def test_a_stream_that_breaks_again_and_again_goes_on(fleet: Fleet) -> None:
    """Each time from where it was, back and forth."""
    fleet.a.faults = ["break", "break"]
    fleet.b.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer, tokens=8)
    assert answer.ids == [100 + n for n in range(1, 9)]
    assert finished.continued == 3


async def test_an_error_within_a_stream_ends_its_call(fleet: Fleet) -> None:
    """The failed server may not push into the answer that another one goes on with."""
    fleet.a.faults = ["error"]
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.endpoint.name) == (EXPECTED, "b")
    async with asyncio.timeout(5):
        await fleet.a.left.wait()


async def test_a_continuation_that_gets_nowhere_is_given_up(fleet: Fleet) -> None:
    """A full fleet is not asked again and again."""
    fleet.a.faults = ["break", *["busy"] * 9]
    fleet.b.faults = ["busy"] * 9
    with pytest.raises(AttemptsExhaustedError):
        await fleet.run(Collected())
    assert len(fleet.a.asked) + len(fleet.b.asked) == 1 + fleet.router.config.max_attempts


async def test_an_answer_whose_end_alone_is_lost_is_whole(fleet: Fleet) -> None:
    """All tokens are there: nothing is asked of another engine."""
    fleet.a.faults = ["break"]
    answer = Collected()
    finished = await fleet.run(answer, tokens=2)
    assert (answer.ids, finished.reason, fleet.b.asked) == ([101, 102], "length", [])


async def test_a_probe_that_is_being_answered_lets_others_in(fleet: Fleet) -> None:
    """However long its answer takes."""
    fleet.register(fleet.endpoints[0])
    fleet.router.ledger.of("a").breaker = Breaker(3, opened_at_s=0.0)
    fleet.a.faults = ["hang"]
    answer = Collected()
    probe = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
    assert (await fleet.run(Collected())).endpoint.name == "a"
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe


@pytest.mark.parametrize("fleet", [{"continue_streams": False}], indirect=True)
async def test_a_stream_that_may_not_be_continued_ends_broken(fleet: Fleet) -> None:
    """Never falsely clean."""
    fleet.a.faults = ["break"]
    with pytest.raises(StreamBrokenError):
        await fleet.run(Collected())
    assert fleet.b.asked == []


async def test_an_answer_nobody_has_seen_begins_anew(fleet: Fleet) -> None:
    """Not streamed: the second endpoint makes the whole of it."""
    fleet.a.faults = ["break"]
    answer = Collected(whole=True)
    finished = await fleet.run(answer)
    assert (answer.ids, finished.continued) == (EXPECTED, 0)
    assert fleet.b.asked[0]["input_ids"] == [100]


async def test_attempts_are_bounded(fleet: Fleet) -> None:
    """Then the last failure is told."""
    fleet.a.faults = ["drop"] * 9
    fleet.b.faults = ["drop"] * 9
    with pytest.raises(AttemptsExhaustedError) as caught:
        await fleet.run(Collected())
    assert caught.value.last.outcome == "unreachable"
    assert len(fleet.a.asked) + len(fleet.b.asked) == fleet.router.config.max_attempts


async def test_failures_open_the_breaker_and_keep_requests_away(fleet: Fleet) -> None:
    """After three in a row the endpoint is not asked; the others serve."""
    fleet.a.faults = ["drop"] * 3
    for _ in range(5):
        await fleet.run(Collected())
    assert len(fleet.a.asked) == 3
    now_s = asyncio.get_running_loop().time()
    assert fleet.router.ledger.of("a").breaker.state(now_s, fleet.router.config) == "open"


async def test_a_request_waits_for_an_endpoint_that_comes(fleet: Fleet) -> None:
    """No endpoint is ready: the request waits, and is served by the one that appears."""
    down = [endpoint.model_copy(update={"state": "unhealthy"}) for endpoint in fleet.endpoints]
    fleet.register(*down)
    answer = Collected()
    waiting = asyncio.create_task(fleet.run(answer))
    await asyncio.sleep(0)
    assert fleet.router.waiting["m"] == 1
    fleet.register(down[0], fleet.endpoints[1])
    assert (await waiting).endpoint.name == "b"
    assert fleet.router.waiting["m"] == 0


async def test_what_runs_in_spare_capacity_goes_only_where_there_is_room(fleet: Fleet) -> None:
    """It is charged as such while it runs; without room it is not among those that wait."""
    held: list[tuple[int, int]] = []

    def only_b(endpoint: Endpoint) -> bool:
        load = fleet.router.ledger.of("b")
        held.append((load.requests, load.spare))
        return endpoint.name == "b"

    fleet.b.faults = ["break"]  # the rest of the answer is routed while nothing is charged
    fleet.a.faults = ["drop"]
    assert (await fleet.run(Collected(), spare=only_b)).endpoint.name == "b"
    assert (len(fleet.a.asked), held[0], fleet.router.ledger.of("b").spare) == (0, (0, 0), 0)
    waiting = asyncio.create_task(fleet.run(Collected(), spare=lambda _: False))
    await asyncio.sleep(0)
    assert fleet.router.waiting["m"] == 0
    with pytest.raises(NoEndpointsError):
        await waiting


async def test_a_row_in_flight_is_charged_as_spare(fleet: Fleet) -> None:
    fleet.a.faults = ["hang"]
    answer = Collected()
    running = asyncio.create_task(fleet.run(answer, spare=lambda endpoint: endpoint.name == "a"))
    async with asyncio.timeout(5):
        await answer.some.wait()
    load = fleet.router.ledger.of("a")
    assert (load.requests, load.spare) == (1, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (load.requests, load.spare) == (0, 0)


async def test_without_any_endpoint_the_request_fails_in_time(fleet: Fleet) -> None:
    """The reason is told."""
    fleet.register()
    with pytest.raises(NoEndpointsError, match="no_endpoint_registered"):
        await fleet.run(Collected())


async def test_cancelling_reaches_the_engine(fleet: Fleet) -> None:
    """The server sees its caller leave; the lease is back at once; the breaker does not mind."""
    fleet.a.faults = ["hang"]
    answer = Collected()
    running = asyncio.create_task(fleet.run(answer))
    async with asyncio.timeout(5):
        await answer.some.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await fleet.a.left.wait()
    assert fleet.router.ledger.in_flight() == 0
    assert fleet.observed.outcomes == [("a", "cancelled")]
    assert fleet.router.ledger.of("a").breaker.failures == 0


GUIDED = {
    "guided_decoding": True,
    "inputs": {
        **SCHEMA.inputs,
        **{
            name: Tensor("BYTES", (-1, 1)) for name in ("guided_decoding_guide_type", "guided_decoding_guide")
        },
    },
}


def endpoints(fleet: Fleet, unguided: int, *, guided: bool) -> list[Endpoint]:
    """So many copies of a, which has no guided decoding, and b, which may have it."""
    a, b = fleet.endpoints
    schema = replace(SCHEMA, **GUIDED) if guided else SCHEMA  # type: ignore[arg-type]
    return [
        *(a.model_copy(update={"name": f"a{n}"}) for n in range(unguided)),
        b.model_copy(update={"server_schema": schema.as_dict()}),
    ]


async def test_what_one_endpoint_cannot_carry_another_one_does(fleet: Fleet) -> None:
    """However many have to be asked; nothing was sent to them, and no attempt is used up."""
    fleet.register(*endpoints(fleet, 5, guided=True))
    answer = Collected()
    finished = await fleet.run(answer, guide=Guide("json"))
    assert (answer.ids, finished.endpoint.name) == (EXPECTED, "b")
    assert fleet.a.asked == []
    assert fleet.b.asked[0]["guided_decoding_guide_type"] == "json"
    assert {outcome for name, outcome in fleet.observed.outcomes if name != "b"} == {"unsupported"}


async def test_what_no_endpoint_can_carry_is_refused_by_name(fleet: Fleet) -> None:
    fleet.register(*endpoints(fleet, 5, guided=False))
    with pytest.raises(UnsupportedFeatureError) as caught:
        await fleet.run(Collected(), guide=Guide("json"))
    assert caught.value.param == "response_format"
    assert fleet.a.asked == fleet.b.asked == []


async def test_one_that_stands_by_at_weight_0_is_not_waited_for(fleet: Fleet) -> None:
    """As a rollout's candidate before its turn: what the client asked for is at fault, and said at once."""
    *unguided, guided = endpoints(fleet, 1, guided=True)
    fleet.register(*unguided, guided.model_copy(update={"weight": 0.0}))
    with pytest.raises(UnsupportedFeatureError) as caught:
        await fleet.run(Collected(), guide=Guide("json"))
    assert caught.value.param == "response_format"


async def test_who_can_carry_it_is_waited_for(fleet: Fleet) -> None:
    """That it was busy makes no mistake of what the client asked for."""
    fleet.register(*endpoints(fleet, 1, guided=True))
    fleet.b.faults = ["busy"]
    fleet.router.ledger.of("b").prefill_tokens = 0
    fleet.router.ledger.of("a0").prefill_tokens = 10**6
    finished = await fleet.run(Collected(), guide=Guide("json"))
    assert (finished.endpoint.name, len(fleet.b.asked)) == ("b", 2)
    assert fleet.a.asked == []
