"""A Triton that a pool restarts, and on which a deployment with `servers` has its model, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from controller.actuators.port import Listing, Running
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from controller.residency.neighbours import RESTARTS, are_idle, needed_for, neighbours
from controller.residency.pool import Memory
from controller.run import Controller
from inference.control import health
from inference.introspection import introspect
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Deployment, Endpoint, EndpointState, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot, Stored
from model_registry.store import RegistryStore
from tests.controller.conftest import ModelServer
from tests.controller.replicas.conftest import (
    CONTROLLER,
    FAST,
    ByHand,
    RedisServer,
    Told,
    config,
    redis_client,
    redis_server,
    store,
    told,
)
from tests.model_registry.conftest import eventually, until

__all__ = ["RedisServer", "config", "redis_client", "redis_server", "store", "told"]

MODEL, SCALED = Model(name="m", context_length=10), Model(name="s", context_length=10)
HERE, THERE = "http://h:1", "http://h:2"


class Leaking:
    """An actuator whose one server keeps 60 MiB until it is restarted, for as long as the test says."""

    def __init__(self, http: str) -> None:
        self.http = http
        self.memories = {http: Memory(None, 60)}
        self.restarts = 0
        self.may_return = asyncio.Event()

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        raise AssertionError

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        raise AssertionError

    async def found(self) -> Listing:
        return Listing(())

    async def recycle(self, http: str) -> None:
        self.restarts += 1
        await self.may_return.wait()
        self.memories = {http: Memory(None, 0)}

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def servers() -> AsyncIterator[Sequence[ModelServer]]:
    servers = [ModelServer(), ModelServer()]
    for one in servers:
        await one.start()
    yield servers
    for one in servers:
        await one.stop()


@asynccontextmanager
async def leading(
    store: RegistryStore, told: Told, actuator: Leaking, fixed: Sequence[ModelServer]
) -> AsyncIterator[None]:
    """With a pool of the leaking server, and a deployment on `fixed`, which is ready there."""
    server = PoolServer(http=actuator.http, memory_mib=100)
    pool = TritonActuator(type="triton", servers=(server,), leak_mib=50, recycle=("restart",))
    refs = tuple(ServerRef(http=one.url) for one in fixed)
    scaling = Scaling(pool="p", min_replicas=0, memory_mib=50)
    await store.apply(
        [MODEL, SCALED, Pool(name="p", actuator=pool), Deployment(name="s", model="s", scaling=scaling)]
    )
    await store.apply([Deployment(name="f", model="m", lane="openai-http", servers=refs)])
    fence = Fence(FAST.margin_s)
    replicas = Replicas(store, ByHand(0), told, lambda _: actuator, fence, FAST)
    controller = Controller(store, introspect, health, CONTROLLER, endpoint_ttl_s=1.0, replicas=replicas)
    task = asyncio.create_task(controller.run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def states(store: RegistryStore) -> dict[str, EndpointState]:
    return {one.http: one.state for group in (await store.load()).endpoints.values() for one in group}


async def test_what_others_have_there_is_drained_before_the_restart_and_comes_back(
    store: RegistryStore, told: Told, servers: Sequence[ModelServer]
) -> None:
    here, there = (one.url for one in servers)
    actuator = Leaking(here)
    told.endpoints = {f"f@{here.removeprefix('http://')}": EndpointDemand(requests=1)}
    async with leading(store, told, actuator, servers):

        async def are(wanted: EndpointState) -> bool:
            return await states(store) == {here: wanted, there: "ready"}

        await eventually(lambda: are("draining"))
        (drain,) = (await store.load()).drains.values()
        assert (drain.endpoint, drain.reason) == (next(iter(told.endpoints)), RESTARTS)
        before = servers[1].asked
        await until(lambda: servers[1].asked > before + 4)  # rounds go on
        assert actuator.restarts == 0, "a request is under way there"
        told.endpoints = {}
        await until(lambda: actuator.restarts == 1)
        assert await are("draining")
        actuator.may_return.set()
        await eventually(lambda: are("ready"))
        assert not (await store.load()).drains
        assert actuator.restarts == 1


async def test_what_is_served_nowhere_else_keeps_a_server_from_its_restart(
    store: RegistryStore, told: Told, servers: Sequence[ModelServer], caplog: pytest.LogCaptureFixture
) -> None:
    actuator = Leaking(servers[0].url)
    async with leading(store, told, actuator, servers[:1]):
        await until(lambda: servers[0].asked > 8)
        assert list((await states(store)).values()) == ["ready"]
    assert actuator.restarts == 0
    reasons = [one.__dict__["reason"] for one in caplog.records if "keeps memory" in one.message]
    assert reasons == ["m is served nowhere else"]


def endpoint(name: str, http: str, **fields: object) -> Endpoint:
    given = {"deployment": "f", "model": "m", "profile": "balanced", "lane": "openai-http", "target": "m"}
    return Endpoint.model_validate({**given, "name": name, "http": http, "state": "ready", **fields})


def snapshot(*objects: Stored) -> Snapshot:
    return Snapshot.of(1, [MODEL, Pool(name="p", actuator=DryRunActuator(type="dry-run")), *objects])


def test_replicas_of_the_pool_are_no_neighbours() -> None:
    own = Replica(name="d.1", deployment="d", model="m", pool="p", server=ServerRef(http=HERE))
    others = endpoint("f@h:1", HERE + "/"), endpoint("f@h:2", THERE)
    found = neighbours(HERE, "p", snapshot(own, endpoint("d@h:1", HERE), *others))
    assert [one.name for one in found] == ["f@h:1"]


@pytest.mark.parametrize(
    ("other", "needed"),
    [
        ({"http": THERE}, None),
        ({"http": THERE, "state": "unhealthy"}, "m"),
        ({"http": THERE, "weight": 0}, "m"),
        ({"http": HERE}, "m"),
    ],
)
def test_a_model_is_needed_where_nobody_else_serves_it(other: dict[str, object], needed: str | None) -> None:
    one = endpoint("f@h:1", HERE)
    second = endpoint("g@h:2", **{"http": THERE, **other})  # type: ignore[arg-type]
    assert needed_for(HERE, [one], snapshot(one, second)) == needed
    assert needed_for(HERE, [one.model_copy(update={"state": "starting"})], snapshot(one)) == "m"
    out = one.model_copy(update={"state": "unhealthy"})
    assert needed_for(HERE, [out], snapshot(out)) is None, "it serves nobody now"


@pytest.mark.parametrize(
    ("demand", "idle"),
    [
        (Demand(at_s=100, age_s=1, workers=1), True),
        (Demand(at_s=100, age_s=None), False),
        (Demand(at_s=100, age_s=6, workers=1), False),
        (Demand(at_s=100, age_s=1, workers=1, silent=1), False),
        (Demand(at_s=100, age_s=1, workers=1, endpoints={"e": EndpointDemand(requests=1)}), False),
        (Demand(at_s=100, age_s=1, workers=1, endpoints={"e": EndpointDemand()}), True),
    ],
)
def test_idleness_is_proven_by_reports_made_later(demand: Demand, idle: bool) -> None:
    assert are_idle([endpoint("e", HERE)], demand, out_at_s=95, settle_s=0.5) is idle
