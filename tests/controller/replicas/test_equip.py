"""Actuators come and go with their pools, and never from under what they are doing."""

from __future__ import annotations

import asyncio

from controller.actuators.port import Listing, Running
from controller.replicas.config import ReplicasConfig
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from model_registry.entities import Deployment, ServerRef
from model_registry.pools import Pool
from model_registry.replicas import Replica
from model_registry.store import RegistryStore
from tests.controller.replicas.conftest import MODEL, ByHand, Processes, Told
from tests.model_registry.conftest import until


class Slow:
    """Starts what it is asked for when the test lets it."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.asked = self.closed = 0

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        self.asked += 1
        await self.may_start.wait()
        return Running(ServerRef(http="http://127.0.0.1:9"), replica.name)

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        """Nothing is there."""

    async def found(self) -> Listing:
        return Listing(())

    async def close(self) -> None:
        self.closed += 1


async def test_an_actuator_is_closed_when_its_pool_has_another_and_nothing_is_under_way(
    store: RegistryStore, processes: Processes, told: Told
) -> None:
    made: list[Slow] = []

    def actuator_of(_pool: Pool) -> Slow:
        made.append(Slow())
        return made[-1]

    fence = Fence(0.1)
    replicas = Replicas(store, ByHand(1), told, actuator_of, fence, ReplicasConfig())
    leadership = await store.claim_leadership("me", 60)
    pool = processes.pool
    await store.apply([MODEL, pool, processes.deployment])

    async def look() -> None:
        await replicas.act(await store.load(), leadership)

    await look()
    await until(lambda: made[0].asked == 1)
    await store.apply([pool.model_copy(update={"labels": {"zone": "a"}, "max_replicas": 7})])
    await look()
    assert len(made) == 1
    await store.apply([processes.pool_of("/bin/true")])
    await look()
    await look()
    assert (len(made), made[0].closed, made[1].asked) == (2, 0, 0)
    made[0].may_start.set()
    await until(lambda: bool(replicas._errands.outcomes))
    await look()
    assert made[0].closed == 1
    ((record,),) = (await store.load()).replicas.values()
    assert record.server is not None
    await replicas.close()
    assert made[1].closed == 1


async def test_the_actuator_of_a_deleted_pool_is_closed(
    store: RegistryStore, processes: Processes, told: Told
) -> None:
    slow = Slow()
    replicas = Replicas(store, ByHand(0), told, lambda _pool: slow, Fence(0.1), ReplicasConfig())
    leadership = await store.claim_leadership("me", 60)
    await store.apply([MODEL, processes.pool, processes.deployment])
    await replicas.act(await store.load(), leadership)
    await store.apply([], delete=[("Deployment", "d"), ("Pool", "p")])
    await until(lambda: not replicas._census.tasks)
    await replicas.act(await store.load(), leadership)
    assert slow.closed == 1
    await replicas.close()
