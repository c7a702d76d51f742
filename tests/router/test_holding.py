"""Requests for a model that is not up: held in turn, within bounds, as long as there is hope for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from inference.request import EmbeddingInput
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
from model_registry.replicas import ScalingStatus
from router.config import HoldingConfig, RouterConfig
from router.errors import ColdFullError, ColdModelError, NoEndpointsError
from router.holding import Outlook, may_take_s, outlook
from router.profiles import Wish
from router.request_batches import Embedded, RequestBatches
from telemetry.config import TelemetryConfig
from telemetry.request_trace import RequestTrace
from telemetry.tracing import Tracing
from tenancy.policy import Selection
from tests.model_registry.conftest import until
from tests.router.patient_engines import MODEL, Fleet

COLD = Deployment(name="d", model="m", labels={"tier": "gold"}, scaling=Scaling(pool="p", cold_start_s=40))
POOL = Pool(name="p", actuator=DryRunActuator(type="dry-run"), labels={"region": "eu"})


def status(expected_in_s: float | None = None, cold_start_s: float | None = None) -> ScalingStatus:
    at = None if expected_in_s is None else time.time() + expected_in_s
    return ScalingStatus(name="d", model="m", pool="p", expected_at=at, cold_start_s=cold_start_s)


class ColdFleet(Fleet):
    """One whose model nobody serves yet, and the controller brings up."""

    def __init__(self, max_requests: int) -> None:
        holding = HoldingConfig(max_requests=max_requests, max_tokens=5000)
        super().__init__({}, RouterConfig(no_endpoint_timeout_s=0.3, holding=holding))
        self.calls = 0
        self.router.queueing.holding.on_held = self._called
        self.says(status())

    def _called(self) -> None:
        self.calls += 1

    def says(self, told: ScalingStatus) -> None:
        """The controller's status, from now on."""
        self.others = [COLD, POOL, told]
        self.register(*self.endpoints)

    @property
    def held(self) -> int:
        groups = self.router.demanded().groups
        return sum(group.held for group in groups.values())


@pytest.fixture
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[ColdFleet]:
    made = ColdFleet(getattr(request, "param", 3))
    yield made
    for engine in made.engines:
        engine.let(1000)
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    assert (made.held, made.observed.queued_now, dict(made.router.queueing.holding.requests())) == (0, 0, {})
    await made.clients.close()
    for engine in made.engines:
        await engine.stop()


async def test_held_requests_go_in_order_when_the_endpoint_comes(fleet: ColdFleet) -> None:
    """One after the other, each told that it was held; the controller was called once, at once."""
    told: list[int] = []
    for n in range(3):
        fleet.ask(n, on_held=lambda n=n: told.append(n))
    await fleet.waiting(3)
    assert (fleet.held, fleet.calls) == (3, 1)
    engine = await fleet.engine(slots=1)
    await engine.until(1)
    assert fleet.held == 0
    engine.let(3)
    await asyncio.gather(*fleet.tasks)
    assert engine.served == [0, 1, 2]
    assert told == [0, 1, 2]
    explained = fleet.router.decisions.find(None, "m", 10)
    assert [one.held_s > 0 for one in explained] == [True] * 3
    for job in fleet.jobs:
        assert isinstance(job.trace, RequestTrace)
        (route,) = job.trace.routes
        assert route.attributes["held_ms"] == round(job.held_s * 1000, 3)
    fleet.ask(3)
    await engine.until(4)
    assert fleet.router.decisions.find(None, "m", 1)[0].held_s == 0


async def test_over_the_bound_the_client_is_told_when_to_come_again(fleet: ColdFleet) -> None:
    fleet.says(status(expected_in_s=17.5))
    for n in range(3):
        fleet.ask(n)
    await fleet.waiting(3)
    with pytest.raises(ColdFullError) as refused:
        await fleet.ask(4)
    assert 5 <= refused.value.retry_after_s <= 18
    fleet.tasks[0].cancel()
    await fleet.waiting(2)
    fleet.ask(5)
    await fleet.waiting(3)
    assert fleet.observed.refusals == ["cold_queue_full"]


@pytest.mark.parametrize("fleet", [99], indirect=True)
async def test_tokens_are_bounded_too(fleet: ColdFleet) -> None:
    for n in range(4):
        fleet.ask(n)
    await fleet.waiting(4)
    with pytest.raises(ColdFullError):
        await fleet.ask(4)


async def test_a_request_without_hope_is_refused_at_once(fleet: ColdFleet) -> None:
    """By the guess, by what was learned, and by what the controller expects."""
    for told, retry_s in ((status(), 40), (status(cold_start_s=12), 12), (status(60), 60)):
        fleet.says(told)
        with pytest.raises(ColdModelError) as refused:
            await fleet.ask(0, deadline_s=time.monotonic() + 10)
        assert retry_s - 5 <= refused.value.retry_after_s <= retry_s
    assert fleet.observed.refusals == ["model_loading"] * 3


async def test_hope_that_fades_ends_the_holding(fleet: ColdFleet) -> None:
    fleet.says(status(expected_in_s=30))
    asked = fleet.ask(0, deadline_s=time.monotonic() + 100)
    await fleet.waiting(1)
    fleet.says(status(expected_in_s=90))
    await asyncio.sleep(0)
    assert not asked.done()
    fleet.says(status(expected_in_s=300))
    with pytest.raises(ColdModelError) as refused:
        await asked
    assert 295 <= refused.value.retry_after_s <= 300


async def test_nobody_is_held_beyond_the_deadline(fleet: ColdFleet) -> None:
    fleet.says(status(expected_in_s=0.05))
    with pytest.raises(ColdModelError) as refused:
        await fleet.ask(0, deadline_s=time.monotonic() + 0.2)
    assert refused.value.retry_after_s >= 1


async def test_who_leaves_is_out_at_once_and_demand_falls(fleet: ColdFleet) -> None:
    asked = [fleet.ask(n) for n in range(2)]
    await fleet.waiting(2)
    for task, left in zip(asked, (1, 0), strict=True):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (fleet.held, fleet.router.demanded().groups["m:balanced"].waiting) == (left, left)
    engine = await fleet.engine(slots=1)
    assert engine.served == []


@pytest.mark.parametrize("stay", [False, True])
async def test_a_queue_whose_replicas_went_is_held_until_others_come(fleet: ColdFleet, stay: bool) -> None:
    """What waited for room waits on, though nothing is up for longer than others are let wait, or what is
    takes no traffic."""
    engine = await fleet.engine(slots=1)
    fleet.ask(0)
    await engine.until(1)
    fleet.ask(1)
    await fleet.waiting(1)
    assert fleet.held == 0
    fleet.register(*(one.model_copy(update={"weight": 0.0}) for one in fleet.endpoints if stay))
    await until(lambda: fleet.held == 1)
    assert fleet.router.coming("m", None) is not None
    other = await fleet.engine(slots=1)
    other.let(1)
    await fleet.tasks[1]
    assert other.served == [1]


async def test_what_no_replica_to_come_may_serve_is_not_held(fleet: ColdFleet) -> None:
    """By the tenant's selection; labels of the pool count as the deployment's."""
    for label, value in (("tier", "lead"), ("region", "us"), ("deployment", "e")):
        with pytest.raises(NoEndpointsError) as refused:
            await fleet.ask(0, selection=Selection(((label, (value,)),)))
        assert not isinstance(refused.value, ColdModelError)
    fits = (("tier", ("gold",)), ("region", ("eu",)), ("deployment", ("d",)), ("endpoint", ("any",)))
    fleet.ask(1, selection=Selection(fits))
    await fleet.waiting(1)
    assert fleet.held == 1


async def test_deployments_that_do_not_scale_are_not_held(fleet: ColdFleet) -> None:
    fleet.others = [Deployment(name="d", model="m", servers=(ServerRef(http="http://127.0.0.1:1"),))]
    fleet.register()
    began_s = time.monotonic()
    with pytest.raises(NoEndpointsError) as refused:
        await fleet.ask(0)
    assert not isinstance(refused.value, ColdModelError)
    assert time.monotonic() - began_s > 0.25


def test_the_outlook_is_of_the_soonest_deployment() -> None:
    other = COLD.model_copy(update={"name": "e", "scaling": Scaling(pool="p", cold_start_s=90)})
    off = COLD.model_copy(update={"name": "f", "weight": 0.0, "scaling": Scaling(pool="p", cold_start_s=1)})
    fixed = Deployment(name="g", model="m", servers=(ServerRef(http="http://a:1"),))
    due = ScalingStatus(name="e", model="m", pool="p", expected_at=105.0)
    late = ScalingStatus(name="d", model="m", pool="p", expected_at=99.0, cold_start_s=8.0)
    failed = ScalingStatus(name="d", model="m", pool="p", failures=1, retry_at=120.0)
    assert outlook(100.0, [fixed, off], {}) is None
    assert outlook(100.0, [COLD], {"d": failed}) == Outlook(60.0, under_way=False)
    assert outlook(100.0, [COLD, other], {}) == Outlook(40.0, under_way=False)
    assert outlook(100.0, [COLD, other], {"e": due}) == Outlook(5.0, under_way=True)
    assert outlook(100.0, [COLD, other], {"d": late}) == Outlook(2.0, under_way=True)
    assert outlook(100.0, [COLD, other], {}, lambda one: one.name == "e") == Outlook(90.0, under_way=False)


@pytest.mark.parametrize(
    ("deadline_s", "max_wait_s", "left_s"),
    [
        (None, None, 86_400.0),
        (130.0, None, 30.0),
        (130.0, 12.0, 12.0),
        (130.0, 60.0, 30.0),
        (90.0, None, 0.0),
    ],
)
def test_how_long_one_may_be_held(deadline_s: float | None, max_wait_s: float | None, left_s: float) -> None:
    assert may_take_s(100.0, deadline_s, max_wait_s) == left_s


@pytest.mark.parametrize("fleet", [2], indirect=True)
async def test_embeddings_that_wait_to_be_joined_are_bounded_too(fleet: ColdFleet) -> None:
    """Two request batches are held, and two requests behind them."""
    batches = RequestBatches(fleet.router)
    tracing = Tracing(TelemetryConfig())

    def embed() -> asyncio.Task[Embedded]:
        wish, inputs = Wish(MODEL, "balanced", "default"), [EmbeddingInput([1, 2])]
        return asyncio.create_task(
            batches.embed(wish, inputs, tracing.begin(None, None), frozenset({"encoder"}))
        )

    asked = [embed() for _ in range(4)]
    await until(lambda: fleet.held == 2)
    with pytest.raises(ColdFullError) as refused:
        await embed()
    assert 39 <= refused.value.retry_after_s <= 40
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await until(lambda: fleet.held == 0)
    tracing.close()


async def test_embeddings_are_refused_at_once_where_the_model_comes_too_late(
    fleet: ColdFleet,
) -> None:
    batches = RequestBatches(fleet.router)
    tracing = Tracing(TelemetryConfig())

    def embed(within_s: float) -> asyncio.Task[Embedded]:
        wish, inputs = Wish(MODEL, "balanced", "default"), [EmbeddingInput([1, 2])]
        trace, lanes = tracing.begin(None, None), frozenset({"encoder"})
        asked = batches.embed(wish, inputs, trace, lanes, deadline_s=time.monotonic() + within_s)
        return asyncio.create_task(asked)

    with pytest.raises(ColdModelError) as refused:
        await asyncio.wait_for(embed(10), 5)
    assert 39 <= refused.value.retry_after_s <= 40
    patient = embed(60)
    await until(lambda: fleet.held == 1)
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)
    await until(lambda: fleet.held == 0)
    tracing.close()
