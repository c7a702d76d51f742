"""Demand reports: gauges of who is there, counts of whoever was."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from model_registry.demand.demand import (
    COUNTS,
    LAPSES_S,
    EndpointDemand,
    GroupDemand,
    WorkerDemand,
    since,
    together,
)
from model_registry.demand.keys import CATALOGUE, Keys
from model_registry.demand.store import DemandStore

from .conftest import eventually


def told(arrivals: int, waiting: int = 0, oldest_s: float = 0.0, failed: int = 0) -> WorkerDemand:
    group = GroupDemand(arrivals=arrivals, waiting=waiting, oldest_s=oldest_s, ttft_s=arrivals / 8)
    return WorkerDemand(groups={"m:latency": group}, endpoints={"d@a|b:1": EndpointDemand(failed=failed)})


async def lapse(redis_client: Redis, worker: str, by_s: float) -> None:
    """Have a worker's last report be so old by Redis' clock."""
    keys = Keys("test")
    at_ms, document = (await redis_client.hget(keys.reports, worker) or "").split(" ", 1)
    earlier = int(at_ms) - round(by_s * 1000)
    await redis_client.hset(keys.reports, worker, f"{earlier} {document}")
    await redis_client.zadd(keys.workers, {worker: earlier})


async def test_gauges_and_counts_of_workers_add_up(demand: DemandStore) -> None:
    nothing = await demand.gather()
    assert (nothing.age_s, nothing.workers, nothing.groups) == (None, 0, {})
    for worker, report in (("w1", told(9)), ("w2", told(5, 1, 2.5, 3)), ("w1", told(10, 2, 1.5))):
        assert await demand.report(worker, report)
    found = await demand.gather()
    group = found.groups["m:latency"]
    assert (group.arrivals, group.waiting, group.oldest_s, found.workers) == (15, 3, 2.5, 2)
    assert found.endpoints["d@a|b:1"].failed == 3
    assert found.age_s is not None
    assert found.age_s < 5


async def test_an_ended_workers_gauges_go_and_its_counts_stay(
    demand: DemandStore, redis_client: Redis
) -> None:
    await demand.report("w1", told(10, 4, 3.0, 2))
    await lapse(redis_client, "w1", LAPSES_S + 1)
    silent = await demand.gather()
    assert (silent.workers, silent.silent, silent.age_s) == (0, 1, None)
    assert silent.groups["m:latency"] == GroupDemand(arrivals=10, ttft_s=1.25)

    await lapse(redis_client, "w1", 120)
    await demand.report("w2", told(1, 1))
    assert await redis_client.hkeys(Keys("test").reports) == ["w2"]
    group = (await demand.gather()).groups["m:latency"]
    assert (group.arrivals, group.waiting, group.ttft_s) == (11, 1, 1.375)
    assert (await demand.gather()).silent == 0

    await demand.report("w2", told(3, 1), known=True, ends=True)
    left = await demand.gather()
    assert left.groups["m:latency"] == GroupDemand(arrivals=13, ttft_s=1.625)
    assert left.endpoints["d@a|b:1"].failed == 2


async def test_who_is_known_to_be_gone_is_silent_no_longer(demand: DemandStore, redis_client: Redis) -> None:
    """Its counts stay, under all its names; who merely says nothing stays silent."""
    for worker in ("a", "a.1", "ab", "b"):
        await demand.report(worker, told(3, 2))
        await lapse(redis_client, worker, LAPSES_S + 1)
    await demand.report("c", told(1), gone=["a", "nobody"])
    found = await demand.gather()
    assert (found.workers, found.silent) == (1, 2)
    assert (found.groups["m:latency"].arrivals, found.groups["m:latency"].waiting) == (13, 0)
    assert sorted(await redis_client.hkeys(Keys("test").reports)) == ["ab", "b", "c"]
    assert not await demand.report("a", told(4), known=True), "should it live, it begins anew"


async def test_who_was_taken_for_ended_is_told_and_counts_nothing_twice(
    demand: DemandStore, redis_client: Redis
) -> None:
    await demand.report("w1", told(10))
    await lapse(redis_client, "w1", 120)
    await demand.report("w2", told(0))
    assert not await demand.report("w1", told(12), known=True)
    assert await demand.report("w1.1", since(told(12, 5), told(10)))
    group = (await demand.gather()).groups["m:latency"]
    assert (group.arrivals, group.waiting, group.ttft_s) == (12, 5, 1.5)


async def test_what_nobody_tells_of_any_more_is_forgotten_after_a_week(
    demand: DemandStore, redis_client: Redis
) -> None:
    keys = Keys("test")
    await demand.report("w1", told(10, failed=1), ends=True)
    for name in ("groups|m:latency|at", "endpoints|d@a|b:1|at"):
        await redis_client.hset(keys.ended, name, 1)
    still = WorkerDemand(groups={"m:latency": GroupDemand(arrivals=1)})
    await demand.report("w2", still)
    await demand.report("w3", still, ends=True)
    found = await demand.gather()
    assert (found.groups["m:latency"].arrivals, found.endpoints) == (12, {})
    assert not [name for name in await redis_client.hkeys(keys.ended) if name.startswith("endpoints")]


async def test_an_urgent_report_is_heard_at_once(demand: DemandStore) -> None:
    begin = await demand.called("$", 0)
    assert await demand.called(begin, 0.01) == begin
    waiting = asyncio.create_task(demand.called(begin, 10))
    await demand.report("w1", told(1))
    await demand.report("w1", told(1, 1), urgent=True)
    heard = await asyncio.wait_for(waiting, 5)
    assert heard != begin
    assert await demand.called("$", 0) == heard


async def test_reports_of_another_release_stop_nothing(demand: DemandStore, redis_client: Redis) -> None:
    await demand.report("w1", told(5))
    keys = Keys("test")
    for worker, document in (("w2", '{"groups": 7}'), ("w3", "[1"), ("w4", '{"groups": {"m:latency": 3}}')):
        await redis_client.hset(keys.reports, worker, f"5 {document}")
        await redis_client.zadd(keys.workers, {worker: 5})
    assert (await demand.gather()).groups["m:latency"].arrivals == 5
    await demand.report("w1", told(6))
    assert await redis_client.hkeys(keys.reports) == ["w1"]


@pytest.mark.parametrize("told", ["0.5", "1e17", "-1e17"])
async def test_odd_counts_of_ended_workers_stop_nothing(
    demand: DemandStore, redis_client: Redis, told: str
) -> None:
    """They stay for a week: whoever gathers would fail for as long."""
    group_told = f'{{"output_tokens": {told}, "arrivals": 4}}'
    await redis_client.hset(Keys("test").reports, "w1", f'5 {{"groups": {{"m:latency": {group_told}}}}}')
    await redis_client.zadd(Keys("test").workers, {"w1": 5})
    await demand.report("w2", WorkerDemand())
    group = (await demand.gather()).groups["m:latency"]
    assert (group.output_tokens, group.arrivals) == (round(float(told)), 4)


async def test_every_key_is_in_the_catalogue_and_lapses(demand: DemandStore, redis_client: Redis) -> None:
    await demand.report("w1", told(5), ends=True)
    await demand.report("w2", told(5), urgent=True)
    found = {key async for key in redis_client.scan_iter()}
    assert found == set(Keys("test").all)
    for key, row in zip(Keys("test").all, CATALOGUE, strict=True):
        assert await redis_client.type(key) == row.type
        assert await redis_client.pttl(key) > 0


async def test_many_workers_report_at_once(demand: DemandStore) -> None:
    await asyncio.gather(*(demand.report(f"w{n}", told(n)) for n in range(20)))
    assert await eventually(demand.gather)
    assert (await demand.gather()).groups["m:latency"].arrivals == sum(range(20))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6), st.integers(0, 99))
def test_the_sum_grows_with_every_part(parts: list[tuple[int, int]], more: int) -> None:
    reports = [(1.0, told(arrivals, waiting)) for arrivals, waiting in parts]
    ended = told(7)
    whole = together(1.0, reports, ended, 5.0)
    assert whole.groups["m:latency"].arrivals == 7 + sum(arrivals for arrivals, _ in parts)
    grown = together(1.0, [*reports, (9.0, told(more, 1))], ended, 5.0)
    for kind, group in (("groups", grown.groups["m:latency"]),):
        before = whole.groups["m:latency"]
        assert all(getattr(group, name) >= getattr(before, name) for name in COUNTS[kind])
    assert grown.groups["m:latency"].waiting == whole.groups["m:latency"].waiting
