"""A second endpoint is asked only for a stall, within its budget, and the answer is one attempt's alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import pytest

from inference.errors import InferenceError, ServerUnreachableError, StreamBrokenError
from inference.request import Usage
from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.answer import Answer, Outcome
from router.config import HedgeConfig
from router.hedging import HedgeCredit, Waiting, why_not
from router.race import OvertakenError, Race
from telemetry.request_trace import AttemptTrace
from tests.router.test_outliers import endpoint
from tests.router.test_slow_endpoint import PacedEngine, Servers, serving
from tests.router.two_engines import EXPECTED, MODEL, Collected

CONFIG = HedgeConfig()
STALLED = Waiting(waited_s=1.0, expected_s=0.1, ready=True, moving=False, busy_share=0.3, prompt_tokens=100)
RICH = HedgeCredit(1000.0)


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        (STALLED, None),
        (STALLED._replace(waited_s=0.29), "not_late"),
        (STALLED._replace(waited_s=0.2, expected_s=0.01), "not_late"),
        (STALLED._replace(expected_s=None), "no_forecast"),
        (STALLED._replace(moving=True), "endpoint_moves"),
        (STALLED._replace(busy_share=0.8), "saturated"),
        (STALLED._replace(prompt_tokens=1001), "budget_spent"),
        (STALLED._replace(ready=False, waited_s=0.3, expected_s=None), None),
        (STALLED._replace(ready=False, waited_s=0.2), "not_late"),
        (STALLED._replace(ready=False, busy_share=0.9), "saturated"),
    ],
)
def test_only_a_stall_is_hedged(waiting: Waiting, reason: str | None) -> None:
    assert why_not(waiting, RICH, CONFIG) == reason


def test_hedges_never_take_more_than_their_share_of_the_prefill() -> None:
    """Each request stalls; what is asked for twice stays within 2 % of what was asked for."""
    credit, hedged, dispatched = HedgeCredit(), 0, 0
    for n in range(5000):
        tokens = 100 + 37 * n % 4000
        credit.dispatched(tokens, CONFIG)
        dispatched += tokens
        if why_not(STALLED._replace(prompt_tokens=tokens), credit, CONFIG) is None:
            credit.spend(tokens)
            hedged += tokens
        assert hedged <= CONFIG.share * dispatched
    assert hedged > 0.9 * CONFIG.share * dispatched


class Attempts:
    """Attempts that a test ends by hand."""

    def __init__(self) -> None:
        self.gates: dict[str, Answer] = {}
        self.cancelled: list[str] = []
        self.told: list[tuple[str, str]] = []

    async def run(self, endpoint: Endpoint, gate: Answer) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        gate.attempt_begins(AttemptTrace(endpoint.name, "tensorrt_llm", "t", "", None), outcome)
        self.gates[endpoint.name] = gate
        gate.attempt_runs(_Call(lambda: self.cancelled.append(endpoint.name)))
        return await outcome

    def tell(self, endpoint: Endpoint, outcome: str) -> None:
        self.told.append((endpoint.name, outcome))


class _Call:
    def __init__(self, cancelled: object) -> None:
        self.cancel = cancelled

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Racing:
    """A race between a and b, with both asked."""

    def __init__(self, answer: Answer) -> None:
        self.attempts = Attempts()
        self.failed: set[str] = set()
        self.race = Race(answer, self.attempts.run, self.attempts.tell, self.failed)
        self.task = asyncio.create_task(self.race.begin(endpoint("a")))

    async def both(self) -> tuple[Answer, Answer]:
        await asyncio.sleep(0)
        assert self.race.may_hedge
        self.race.hedge(endpoint("b"))
        assert not self.race.may_hedge
        await asyncio.sleep(0)
        return self.attempts.gates["a"], self.attempts.gates["b"]

    async def ended(self) -> tuple[str, Outcome]:
        async with asyncio.timeout(1):
            winner, outcome = await self.task
        await asyncio.sleep(0.01)
        return winner.name, outcome


@pytest.mark.parametrize("first", ["a", "b"])
async def test_whoever_is_first_answers_alone(first: str) -> None:
    """Both push in turns, as two servers do that have not heard of each other."""
    answer = Collected()
    racing = Racing(answer)
    gates = dict(zip("ab", await racing.both(), strict=True))
    loser = "b" if first == "a" else "a"
    gates[loser].head()
    gates[first].tokens([1], None)
    assert racing.attempts.cancelled == [loser], "cancelled before anything else happens"
    for n in range(2, 5):
        gates[loser].tokens([100 + n], None)
        gates[first].tokens([n], None)
        gates[loser].flush()
    gates[loser].end("stop", Usage())
    gates[loser].lost(StreamBrokenError("x"))
    gates[first].end("length", Usage(1, 4))
    assert await racing.ended() == (first, ("length", Usage(1, 4)))
    assert answer.ids == [1, 2, 3, 4]
    assert racing.attempts.told == [(loser, "overtaken")]


async def test_an_open_gate_is_out_of_the_way() -> None:
    """Its tokens go to the answer by the answer's own method."""
    answer = Collected()
    racing = Racing(answer)
    a, _ = await racing.both()
    a.tokens([1], None)
    assert a.tokens == answer.tokens
    a.end("stop", Usage())
    await racing.ended()


async def test_who_kept_a_gates_methods_from_before_it_opened_reaches_the_answer_by_them() -> None:
    """As the readers of servers' answers do."""
    flushed: list[int] = []
    answer = Collected()
    answer.flush = lambda: flushed.append(len(answer.ids))  # type: ignore[method-assign]
    racing = Racing(answer)
    a, b = await racing.both()
    push, flush, other = a.tokens, a.flush, b.flush
    flush()
    push([1], None)
    other()
    flush()
    push([2], None)
    flush()
    assert flushed == [1, 2]
    a.end("stop", Usage())
    await racing.ended()


async def test_when_the_first_fails_the_second_is_waited_for() -> None:
    answer = Collected()
    racing = Racing(answer)
    a, b = await racing.both()
    a.lost(ServerUnreachableError("x"))
    await asyncio.sleep(0)
    b.tokens([7], None)
    b.end("stop", Usage())
    assert await racing.ended() == ("b", ("stop", Usage()))
    assert (answer.ids, racing.failed, racing.attempts.told) == ([7], {"a"}, [("a", "unreachable")])


async def test_when_the_second_fails_the_first_goes_on() -> None:
    answer = Collected()
    racing = Racing(answer)
    a, b = await racing.both()
    b.lost(ServerUnreachableError("x"))
    await asyncio.sleep(0.01)
    a.tokens([7], None)
    a.end("stop", Usage())
    assert await racing.ended() == ("a", ("stop", Usage()))
    assert (answer.ids, racing.failed, racing.attempts.told) == ([7], {"b"}, [("b", "unreachable")])


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_when_both_fail_a_failure_is_told(order: str) -> None:
    """Never that one has overtaken the other; each failure is counted once."""
    racing = Racing(Collected())
    gates = dict(zip("ab", await racing.both(), strict=True))
    for name in order:
        gates[name].lost(ServerUnreachableError(name))
        await asyncio.sleep(0.01)
    _, outcome = await racing.ended()
    assert isinstance(outcome, ServerUnreachableError)
    assert len(racing.attempts.told) == 1


async def test_a_winner_that_breaks_at_once_is_what_is_told() -> None:
    """Its first token and its end come in one read."""
    answer = Collected()
    racing = Racing(answer)
    _, b = await racing.both()
    b.tokens([7], None)
    b.lost(StreamBrokenError("x"))
    name, outcome = await racing.ended()
    assert (name, answer.ids) == ("b", [7])
    assert isinstance(outcome, InferenceError)
    assert not isinstance(outcome, OvertakenError)


async def test_a_client_that_leaves_ends_both() -> None:
    racing = Racing(Collected())
    await racing.both()
    racing.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing.task
    assert len(asyncio.all_tasks()) == 1


ENOUGH = 2 * round(1 / CONFIG.share)
"""Requests after which one of them may be asked for twice."""


class StallingEngine(PacedEngine):
    """Brings nothing at all while `stalled`; `left` is set when a caller it keeps waiting goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stalled = False

    async def _handle(self, request):  # type: ignore[no-untyped-def]
        if self.stalled:
            self.asked.append(await request.json())
            try:
                await asyncio.sleep(30)
            finally:
                self.left.set()
        return await super()._handle(request)


async def warm(servers: Servers) -> None:
    """Let the router see what first tokens take, and save some credit: a busy machine takes longer to."""
    answers = 0
    while answers < ENOUGH:
        answers += await servers.load(6, 0.5)
    servers.router.ledger.of("e1").prefill_tokens = 10**6


async def ask(servers: Servers, profile: str = "latency") -> tuple[Sequence[int], float]:
    answer, began_s = Collected(), monotonic()
    await servers.router.run(servers.job(profile), answer)
    return answer.ids, monotonic() - began_s


async def test_live_a_stalled_endpoint_is_hedged_and_its_call_cancelled() -> None:
    stuck, well = StallingEngine(), PacedEngine()
    async with serving(stuck, well) as servers:
        await warm(servers)
        usual_s = max([(await ask(servers))[1] for _ in range(5)])
        servers.observed.outcomes.clear()
        stuck.stalled = True
        ids, took_s = await ask(servers)
        assert ids == EXPECTED
        assert took_s < 1.5 + 10 * usual_s
        async with asyncio.timeout(20):
            await stuck.left.wait()
        assert servers.observed.outcomes == [("e0", "overtaken"), ("e1", "ok")]
        assert [servers.router.queueing.places.requests(name) for name in ("e0", "e1")] == [0, 0]
        told = servers.router.decisions.find("r", None, 2)
        assert [(one.is_hedge, one.attempt) for one in told] == [(True, 1), (False, 1)]


async def test_live_an_endpoint_that_is_not_ready_any_more_is_hedged() -> None:
    stuck, well = StallingEngine(), PacedEngine()
    async with serving(stuck, well) as servers:
        await warm(servers)
        stuck.stalled = True
        asking = asyncio.create_task(ask(servers))
        await asyncio.sleep(0.05)
        down = servers.endpoints[0].model_copy(update={"state": "unhealthy"})
        servers.snapshot = Snapshot.of(2, [MODEL, down, servers.endpoints[1]])
        servers.router.registry_changed()
        assert (await asking)[0] == EXPECTED


class Flowing(StallingEngine):
    """Its first answer goes on and on."""

    async def _handle(self, request):  # type: ignore[no-untyped-def]
        if self.stalled and len(self.asked) == self.flows_at:
            return await self._flow(request)
        return await super()._handle(request)

    flows_at = -1

    async def _flow(self, request):  # type: ignore[no-untyped-def]
        from aiohttp import web

        self.asked.append(await request.json())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for n in range(1, 500):
            event = f'data: {{"model_name": "x", "output_ids": {100 + n}, "sequence_length": {n}}}\n\n'
            await response.write(event.encode())
            await asyncio.sleep(0.02)
        return response


@pytest.mark.parametrize("case", ["other profile", "no credit", "endpoint moves", "saturated"])
async def test_live_nothing_is_asked_twice_without_a_reason(case: str) -> None:
    stuck, well = Flowing(), PacedEngine()
    async with serving(stuck, well) as servers:
        await warm(servers)
        profile, others = "latency", []
        match case:
            case "other profile":
                profile = "balanced"
            case "no credit":
                servers.router._hedger._credits.clear()
            case "endpoint moves":
                stuck.flows_at = len(stuck.asked)
            case "saturated":
                slots = servers.endpoints[0].max_concurrency
                servers.router.ledger.of("e1").requests = 2 * slots
        stuck.stalled = True
        if case == "endpoint moves":
            flowing = Collected()
            others = [asyncio.create_task(servers.router.run(servers.job(), flowing))]
            async with asyncio.timeout(2):
                await flowing.some.wait()
        well_asked = len(well.asked)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await ask(servers, profile)
        assert len(well.asked) == well_asked
        servers.router.ledger.of("e1").requests = 0
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
