"""Waiting for room against real sockets: windows, turns, cancellation, refusals, spill-over, waiting room."""

from __future__ import annotations

import asyncio

import pytest

from model_registry.entities import Deployment, Scaling
from model_registry.knobs import Knobs
from router.errors import NoEndpointsError, QueueFullError, QueueTimeoutError
from router.fair_queue import BURST_TOKENS
from tests.router.patient_engines import Fleet, Timed, fleet

__all__ = ["fleet"]


SMALL = Knobs(queue_limit=4, max_wait_s=0.2)


async def test_never_more_than_the_window_is_with_an_engine(fleet: Fleet) -> None:
    """The rest waits here, and all are answered."""
    engine = await fleet.engine(slots=3)
    asked = [fleet.ask(n) for n in range(40)]
    await engine.until(3)
    await fleet.waiting(37)
    assert fleet.router.waiting["m"] == 37
    engine.let(40)
    await asyncio.gather(*asked)
    assert engine.most == 3
    assert sorted(engine.served) == list(range(40))
    assert len(fleet.observed.waits) == 37


async def test_tenants_take_turns_by_weight_under_a_flood(fleet: Fleet) -> None:
    """Who comes after 100 requests of another has its burst, then its turns; weight 2 is twice both.

    The flood's own burst comes after theirs.
    """
    engine = await fleet.engine(slots=1)
    asked = [fleet.ask(0, "holder")]
    await engine.until(1)
    asked += [fleet.ask(1, "flood") for _ in range(100)]
    await fleet.waiting(100)
    burst = int(BURST_TOKENS / 1000)
    asked += [fleet.ask(2, "single") for _ in range(burst + 12)]
    asked += [fleet.ask(3, "double", weight=2.0) for _ in range(2 * burst + 24)]
    await fleet.waiting(136 + 3 * burst)
    engine.let(137 + 3 * burst)
    await asyncio.gather(*asked)
    served = engine.served[1:]
    bursts, last, turns = served[: 3 * burst], served[3 * burst : 4 * burst], served[4 * burst :][:40]
    assert bursts.count(1) <= 2
    assert bursts.count(3) == pytest.approx(2 * burst, abs=3)
    assert last.count(1) >= burst - 3
    assert 9 <= turns.count(1) <= 12
    assert 9 <= turns.count(2) <= 12
    assert 17 <= turns.count(3) <= 20


async def test_who_has_the_places_waits_behind_those_that_do_not(fleet: Fleet) -> None:
    """One that found room for most of what runs, before anybody waited; once that is over, it does not."""
    engine = await fleet.engine(slots=8)
    asked = [fleet.ask(0, "flood") for _ in range(7)]
    await engine.until(7)
    asked.append(fleet.ask(0, "small"))
    await engine.until(8)
    asked += [fleet.ask(1, "flood") for _ in range(3)]
    await fleet.waiting(3)
    asked.append(fleet.ask(2, "small"))
    await fleet.waiting(4)
    engine.let(12)
    await asyncio.gather(*asked)
    assert engine.served[8:] == [2, 1, 1, 1]
    asked = [fleet.ask(0, "holder") for _ in range(8)]
    await engine.until(20)
    asked += [fleet.ask(1, "flood") for _ in range(3)]
    await fleet.waiting(3)
    asked.append(fleet.ask(2, "small"))
    await fleet.waiting(4)
    engine.let(12)
    await asyncio.gather(*asked)
    assert engine.served[20:] == [1, 1, 1, 2]


async def test_critical_requests_go_first(fleet: Fleet) -> None:
    """Of what waits; what is with the engine stays there."""
    engine = await fleet.engine(slots=1)
    asked = [fleet.ask(0)]
    await engine.until(1)
    asked += [fleet.ask(1, priority="sheddable"), fleet.ask(2), fleet.ask(3, priority="critical")]
    await fleet.waiting(3)
    engine.let(4)
    await asyncio.gather(*asked)
    assert engine.served == [0, 3, 2, 1]


async def test_a_client_that_leaves_the_queue_is_gone_at_once(fleet: Fleet) -> None:
    """Nothing of it reaches the engine, and who waits behind moves up."""
    engine = await fleet.engine(slots=1)
    holder = fleet.ask(0)
    await engine.until(1)
    leaver, stayer = fleet.ask(1), fleet.ask(2)
    await fleet.waiting(2)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    assert fleet.observed.queued_now == 1
    engine.let(2)
    await asyncio.gather(holder, stayer)
    assert engine.served == [0, 2]


async def test_a_client_that_leaves_as_it_is_let_go_loses_no_place(fleet: Fleet) -> None:
    """The place that it was given a moment before goes to the next."""
    engine = await fleet.engine(slots=1)
    holder = fleet.ask(0)
    await engine.until(1)
    leaver, stayer = fleet.ask(1), fleet.ask(2)
    await fleet.waiting(2)
    holder.cancel()
    holder.add_done_callback(lambda _: leaver.cancel())
    await asyncio.gather(holder, leaver, return_exceptions=True)
    engine.let(2)
    await stayer
    assert engine.served[-1] == 2


@pytest.mark.parametrize("fleet", [{"balanced": SMALL.model_copy(update={"max_wait_s": 5.0})}], indirect=True)
async def test_a_full_queue_refuses_with_a_time_to_come_back(fleet: Fleet) -> None:
    """429, and the tenant that fills the queue gives way to others."""
    engine = await fleet.engine(slots=1)
    fleet.ask(0)
    await engine.until(1)
    flood = [fleet.ask(1, "flood") for _ in range(4)]
    await fleet.waiting(4)
    with pytest.raises(QueueFullError) as refused:
        await fleet.ask(1, "flood")
    assert refused.value.retry_after_s >= 1
    other = fleet.ask(2, "other")
    ended, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert isinstance(next(iter(ended)).exception(), QueueFullError)
    assert fleet.observed.refusals == ["queue_full", "queue_full"]
    engine.let(10)
    await other


@pytest.mark.parametrize("fleet", [{"balanced": SMALL}], indirect=True)
async def test_who_has_waited_too_long_is_told_so(fleet: Fleet) -> None:
    """After `max_wait_s`, while the engine is still busy."""
    engine = await fleet.engine(slots=1)
    fleet.ask(0)
    await engine.until(1)
    with pytest.raises(QueueTimeoutError):
        await fleet.ask(1)
    assert engine.served == [0]
    assert fleet.observed.waits[0] == pytest.approx(0.2, abs=0.15)


async def test_a_full_profile_spills_over_and_loses_nothing(fleet: Fleet) -> None:
    """`balanced` uses the endpoint of `latency` while its own is full; what is left waits for both."""
    own = await fleet.engine(slots=2)
    other = await fleet.engine(slots=2, profile="latency")
    asked = [fleet.ask(n) for n in range(12)]
    await own.until(2)
    await other.until(2)
    await fleet.waiting(8)
    other.let(12)
    own.let(12)
    await asyncio.gather(*asked)
    assert sorted(own.served + other.served) == list(range(12))
    assert (own.most, other.most) == (2, 2)


async def test_throughput_waits_for_its_own(fleet: Fleet) -> None:
    """It does not spill over because its endpoint is full, only where it has none."""
    own = await fleet.engine(slots=1, profile="throughput")
    other = await fleet.engine(slots=8)
    slots = 2  # 1.25 of one slot, rounded up
    asked = [fleet.ask(n, profile="throughput") for n in range(6)]
    await own.until(slots)
    await fleet.waiting(6 - slots)
    assert other.served == []
    fleet.register(*(one for one in fleet.endpoints if one.profile == "balanced"))
    await other.until(6 - slots)
    own.let(6)
    other.let(6)
    await asyncio.gather(*asked)
    assert len(own.served) == slots


async def test_the_waiting_room_lasts_until_an_endpoint_comes(fleet: Fleet) -> None:
    """A request for a model without endpoints is served by the first one that appears."""
    asked = fleet.ask(1)
    await asyncio.sleep(0)
    engine = await fleet.engine(slots=1)
    engine.let(1)
    assert (await asked).attempts == 1


async def test_without_any_endpoint_it_ends_with_503(fleet: Fleet) -> None:
    """Also for those that waited in the queue when the last endpoint went."""
    with pytest.raises(NoEndpointsError):
        await fleet.ask(1)
    engine = await fleet.engine(slots=1)
    fleet.ask(0)
    await engine.until(1)
    queued = fleet.ask(1)
    await fleet.waiting(1)
    fleet.register()
    with pytest.raises(NoEndpointsError):
        await queued
    assert fleet.observed.refusals == []


async def test_a_retry_goes_before_new_requests(fleet: Fleet) -> None:
    """What failed at one endpoint is next at the other, however many wait."""
    busy = await fleet.engine(slots=1)
    asked = [fleet.ask(0)]
    await busy.until(1)
    asked += [fleet.ask(n) for n in range(1, 6)]
    await fleet.waiting(5)
    failing = await fleet.engine(slots=1, faults=["busy"])
    await failing.until(2)  # it refused 1 and holds 2
    await fleet.waiting(4)
    busy.let(1)
    await busy.until(2)
    assert busy.served == [0, 1]
    failing.let(10)
    busy.let(10)
    await asyncio.gather(*asked)
    assert sorted({*failing.served, *busy.served}) == list(range(6))


async def test_a_request_that_fits_no_kv_room_waits_though_slots_are_free(fleet: Fleet) -> None:
    """By prompt and largest answer, where the engine reserves both; smaller ones do not slip past it."""
    engine = await fleet.engine(slots=8, kv_tokens=2300)
    asked = [fleet.ask(0, max_tokens=150)]
    await engine.until(1)
    asked.append(fleet.ask(1, max_tokens=200))
    await fleet.waiting(1)
    asked.append(fleet.ask(2, max_tokens=10))
    await fleet.waiting(2)
    engine.let(1)
    await engine.until(2)
    assert engine.served == [0, 1]
    engine.let(2)
    await asyncio.gather(*asked)


async def test_the_controller_is_told_what_waits_and_what_was(fleet: Fleet) -> None:
    """Gauges of now, counts of all that came; refusals for want of an endpoint among them.

    What an endpoint has to compute is told with what attention adds: 1.5 % to a prompt of 1,000 tokens.
    """
    with pytest.raises(NoEndpointsError):
        await fleet.ask(0)
    engine = await fleet.engine(slots=1)
    asked = [fleet.ask(n) for n in range(3)]
    await fleet.waiting(2)
    await engine.until(1)
    told = fleet.router.demanded()
    group, endpoint = told.groups["m:balanced"], told.endpoints["balanced-1"]
    assert (group.arrivals, group.prompt_tokens, group.refused, group.ended) == (4, 4000, 1, 1)
    assert (group.waiting, group.waiting_tokens, group.first_tokens) == (2, 2000, 0)
    assert 0 <= group.oldest_s < 5
    assert (endpoint.requests, endpoint.prefill_tokens, endpoint.ended) == (1, 1014, 0)
    engine.let(3)
    await asyncio.gather(*asked)
    told = fleet.router.demanded()
    group, endpoint = told.groups["m:balanced"], told.endpoints["balanced-1"]
    assert (group.waiting, group.waiting_tokens, group.oldest_s) == (0, 0, 0.0)
    assert (group.ended, group.output_tokens) == (4, 3)
    assert (endpoint.requests, endpoint.ended, endpoint.failed) == (0, 3, 0)


async def test_of_each_first_token_it_is_told_whether_it_was_late(fleet: Fleet) -> None:
    """By the target of the deployment, where it has one."""
    engine = await fleet.engine(slots=1)
    for target_s, late in ((60.0, [False]), (1e-9, [False, True])):
        scaling = Scaling(pool="p", ttft_s=target_s)
        fleet.others = [Deployment(name="d", model="m", scaling=scaling)]
        fleet.register(*fleet.endpoints)
        asked = fleet.ask(0, answer=Timed())
        await asyncio.sleep(0.01)  # the loop's clock counts milliseconds
        engine.let(1)
        await asked
        assert fleet.observed.were_late == late
        assert fleet.router.demanded().groups["m:balanced"].ttft_missed == sum(late)
