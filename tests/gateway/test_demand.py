"""Reports of a gateway process to the controller, through a real Redis that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from gateway.demand import DemandReports
from model_registry.demand.demand import GroupDemand, WorkerDemand
from model_registry.demand.keys import Keys
from model_registry.demand.store import DemandStore
from tests.model_registry.conftest import RedisServer, config, demand, eventually, redis_client, redis_server

__all__ = ["config", "demand", "redis_client", "redis_server"]


class Gateway:
    """What is counted in one process."""

    def __init__(self, store: DemandStore) -> None:
        self.arrivals = 0
        self.held = 0
        self.reports = DemandReports(store, self.demanded, "w")

    def demanded(self) -> WorkerDemand:
        return WorkerDemand(groups={"m:latency": GroupDemand(arrivals=self.arrivals, held=self.held)})


@pytest.fixture
def store(demand: DemandStore) -> DemandStore:
    return demand


@pytest.fixture
async def gateway(store: DemandStore) -> AsyncIterator[Gateway]:
    made = Gateway(store)
    task = asyncio.create_task(made.reports.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def arrivals(store: DemandStore) -> int:
    group = (await store.gather()).groups.get("m:latency")
    return 0 if group is None else group.arrivals


async def test_what_is_urgent_is_told_at_once(
    store: DemandStore, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the next regular report, which would come an hour later."""
    monkeypatch.setattr("gateway.demand.REPORT_S", 3600.0)
    await eventually(lambda: workers(store))
    begin = await store.called("$", 0)
    called = asyncio.create_task(store.called(begin, 30))
    gateway.arrivals, gateway.held = 1, 1
    gateway.reports.urgent()
    assert await called != begin
    assert (await store.gather()).groups["m:latency"].held == 1


async def workers(store: DemandStore) -> int:
    return (await store.gather()).workers


async def test_counts_outlive_redis_and_the_process(
    gateway: Gateway, store: DemandStore, redis_server: RedisServer
) -> None:
    gateway.arrivals = 5
    assert await eventually(lambda: arrivals(store))
    redis_server.kill()
    gateway.arrivals = 8
    gateway.reports.urgent()
    redis_server.start()

    async def caught_up() -> bool:
        return await arrivals(store) == 8

    assert await eventually(caught_up)
    await gateway.reports.close()
    ended = await store.gather()
    assert (ended.groups["m:latency"].arrivals, ended.workers) == (8, 0)


async def test_who_was_taken_for_ended_goes_on_under_another_name(
    gateway: Gateway, store: DemandStore, redis_client: Redis
) -> None:
    gateway.arrivals = 5
    assert await eventually(lambda: arrivals(store))
    await redis_client.zadd(Keys("test").workers, {"w": 0})
    await store.report("other", WorkerDemand())
    gateway.arrivals = 7
    gateway.reports.urgent()

    async def renamed() -> bool:
        return "w.1" in await redis_client.hkeys(Keys("test").reports)

    assert await eventually(renamed)
    assert await arrivals(store) == 7
