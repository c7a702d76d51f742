"""Controllers bring real processes up and down, through crashes of servers and of leaders."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from controller.run import Controller
from model_registry.connection import RedisClient
from model_registry.demand.demand import EndpointDemand
from model_registry.entities import Scaling
from model_registry.errors import InUseError, RegistryUnavailableError
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from tests.controller.replicas.conftest import MODEL, ByHand, Processes, RedisServer, Told
from tests.model_registry.conftest import eventually, until


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[Controller]:
    task = asyncio.create_task(controller.run())
    yield controller
    task.cancel()
    await asyncio.wait([task])


def snapshot_where(store: RegistryStore, true: Callable[[Snapshot], bool]) -> Awaitable[list[Snapshot]]:
    async def ask() -> list[Snapshot]:
        try:
            snapshot = await store.load()
        except RegistryUnavailableError:
            return []
        return [snapshot] if true(snapshot) else []

    return eventually(ask)


def states(snapshot: Snapshot) -> list[str]:
    return sorted(one.state for one in snapshot.replicas.get("d", ()))


def serving(snapshot: Snapshot) -> int:
    return sum(one.state == "ready" for one in snapshot.endpoints.get("m", ()))


async def test_replicas_follow_what_is_wanted(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """From none to three and back to one and none, each with a process and an endpoint of its own."""
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: "d" in s.scaling)
        assert states(snapshot) == []
        scaler.wanted = 3
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * 3 and serving(s) == 3)
        assert len(processes.pids()) == 3
        status = snapshot.scaling["d"]
        assert (status.wanted, status.ready, status.reason) == (3, 3, "by hand")
        assert status.cold_start_s is not None
        assert 0 < status.cold_start_s < 10
        scaler.wanted = 1
        await snapshot_where(store, lambda s: states(s) == ["ready"])
        await until(lambda: len(processes.pids()) == 1)
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [] and serving(s) == 0)
        assert processes.pids() == []
    assert not list(processes.state.rglob("*.json"))


async def test_a_server_that_dies_is_replaced(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    scaler.wanted = 1
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (before,) = await snapshot_where(store, lambda s: states(s) == ["ready"])
        (pid,) = processes.pids()
        os.kill(pid, signal.SIGKILL)
        (dead,) = before.replicas["d"]
        await snapshot_where(store, lambda s: states(s) == ["ready"] and s.replicas["d"][0].name != dead.name)
        assert len(processes.pids()) == 1
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])


async def test_requests_under_way_keep_their_replica(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """It drains until gateways tell of no request there, and is taken back when it is wanted meanwhile."""
    scaler.wanted = 1
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"])
        (endpoint,) = snapshot.endpoints["m"]
        told.endpoints = {endpoint.name: EndpointDemand(requests=1)}
        scaler.wanted = 0
        (snapshot,) = await snapshot_where(
            store, lambda s: states(s) == ["draining"] and [e.state for e in s.endpoints["m"]] == ["draining"]
        )
        (draining,) = snapshot.replicas["d"]
        scaler.wanted = 1
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"] and serving(s) == 1)
        assert snapshot.replicas["d"][0].name == draining.name
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == ["draining"])
        assert len(processes.pids()) == 1
        told.endpoints = {}
        await snapshot_where(store, lambda s: states(s) == [])


async def test_starts_that_fail_are_told_and_tried_ever_less_often(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    scaler.wanted = 1
    broken = processes.pool_of("/bin/sh", "-c", "echo no such GPU; exit 3")
    await store.apply([MODEL, broken, processes.deployment])
    reasons: list[str] = []

    def failed_twice(snapshot: Snapshot) -> bool:
        reasons.extend(one.reason for one in snapshot.replicas.get("d", ()) if one.state == "failed")
        status = snapshot.scaling.get("d")
        return status is not None and status.failures >= 2

    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, failed_twice)
        status = snapshot.scaling["d"]
        assert status.retry_at is not None
        assert any("no such GPU" in reason for reason in reasons)
        await store.apply([processes.pool])
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"])
        assert (snapshot.scaling["d"].failures, snapshot.scaling["d"].retry_at) == (0, None)
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])


async def test_what_lost_its_record_gets_it_back(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """By the name that its process carries."""
    scaler.wanted = 1
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"])
        (record,) = snapshot.replicas["d"]
        (pid,) = processes.pids()
        await store.delete("Replica", record.name)
        scaler.wanted = 2
        (snapshot,) = await snapshot_where(
            store,
            lambda s: states(s) == ["ready"] * 2 and record.name in {one.name for one in s.replicas["d"]},
        )
        assert pid in processes.pids()
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])
        assert processes.pids() == []


async def test_what_no_deployment_has_is_taken_away(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """With its record it lost whose replica it is."""
    scaler.wanted = 1
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"])
        (record,) = snapshot.replicas["d"]
        await store.apply([], delete=[("Replica", record.name), ("Deployment", "d")])
        await until(lambda: processes.pids() == [])
        await snapshot_where(store, lambda s: states(s) == [])


@pytest.mark.parametrize("restarts", [False, True])
async def test_after_a_loss_of_the_registry_what_runs_serves_on(
    store: RegistryStore,
    processes: Processes,
    scaler: ByHand,
    told: Told,
    redis_client: RedisClient,
    restarts: bool,
) -> None:
    """Nothing is stopped and nothing started once the manifests are applied again, in parts."""
    scaler.wanted = 2
    objects = [MODEL, processes.pool, processes.deployment]
    await store.apply(objects)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(processes.controller(store, scaler, told)))
        (before,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * 2)
        if restarts:
            await stack.aclose()
        await redis_client.flushall()
        if restarts:
            await stack.enter_async_context(running(processes.controller(store, scaler, told)))
        await store.apply(objects[:2])
        await store.apply(objects[2:])
        (after,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        names = [sorted(one.name for one in snapshot.replicas["d"]) for snapshot in (before, after)]
        assert names[0] == names[1]
        assert [act["act"] for act in processes.done()] == ["start"] * 2
        assert after.scaling["d"].cold_start_s is None, "no start was seen"
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])
        assert processes.pids() == []


async def test_while_redis_is_away_no_replica_changes(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told, redis_server: RedisServer
) -> None:
    scaler.wanted = 2
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)) as controller:
        await snapshot_where(store, lambda s: states(s) == ["ready"] * 2)
        servers = processes.pids()
        redis_server.signal(signal.SIGSTOP)
        scaler.wanted = 0
        leadership = controller.leadership
        assert leadership is not None
        await until(lambda: not leadership.holds(-0.5))
        assert processes.pids() == servers
        redis_server.signal(signal.SIGCONT)
        await snapshot_where(store, lambda s: states(s) == [])
        assert processes.pids() == []


async def test_a_pool_with_replicas_stays_and_another_takes_over_before_they_go(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """A deployment that moves is served all the while; only then may the pool that it left be deleted."""
    scaler.wanted = 1
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        await snapshot_where(store, lambda s: states(s) == ["ready"])
        (before,) = processes.pids()
        other = processes.pool.model_copy(update={"name": "q"})
        moved = processes.deployment.model_copy(
            update={"scaling": Scaling(pool="q", min_replicas=0, max_replicas=5)}
        )
        await store.apply([other, moved])
        with pytest.raises(InUseError, match="wait until replicas go"):
            await store.delete("Pool", "p", cascade=True)
        (snapshot,) = await snapshot_where(
            store, lambda s: [one.pool for one in s.replicas["d"]] == ["q"] and states(s) == ["ready"]
        )
        assert serving(snapshot) == 1
        assert before not in processes.pids()
        starts = [act["at_s"] for act in processes.done() if act["act"] == "start"]
        (stop,) = [act["at_s"] for act in processes.done() if act["act"] == "stop"]
        assert max(starts) < stop
        await store.delete("Pool", "p")
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])


@pytest.mark.parametrize("verb", ["start", "stop"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_act_whose_leader_was_killed_is_finished_once(
    store: RegistryStore,
    processes: Processes,
    scaler: ByHand,
    told: Told,
    redis_server: RedisServer,
    verb: str,
    moment: str,
) -> None:
    """Its record was written, and then the act not begun, or done and not recorded."""
    await store.apply([MODEL, processes.pool, processes.deployment])
    wanted = scaler.wanted = 1 if verb == "start" else 0
    if verb == "stop":
        scaler.wanted = 1
        async with running(processes.controller(store, scaler, told)):
            await snapshot_where(store, lambda s: states(s) == ["ready"])
        scaler.wanted = 0
    given = (redis_server.url, str(processes.folder), moment, verb, str(wanted))
    script = "tests.controller.replicas.killed_controller"
    killed = await asyncio.create_subprocess_exec(sys.executable, "-m", script, *given)
    assert await killed.wait() == -signal.SIGKILL
    ((record,),) = (await store.load()).replicas.values()
    assert record.state == {"start": "starting", "stop": "stopping"}[verb]
    assert len(processes.pids()) == ((verb, moment) in {("start", "after"), ("stop", "before")})
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * wanted)
        assert [one.name for one in snapshot.replicas.get("d", ())] == [record.name] * wanted
        assert [act["act"] for act in processes.done()].count("start") == 1
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])
        assert processes.pids() == []
    assert not list(processes.state.rglob("*.json"))


async def test_a_max_replicas_that_is_lowered_under_load_cuts_no_request(
    store: RegistryStore, processes: Processes, scaler: ByHand, told: Told
) -> None:
    """Whatever the load wants: the busiest stays, and the others finish what they have."""
    scaler.wanted = 3
    await store.apply([MODEL, processes.pool, processes.deployment])
    async with running(processes.controller(store, scaler, told)):
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["ready"] * 3 and serving(s) == 3)
        names = sorted(one.name for one in snapshot.endpoints["m"])
        told.endpoints = {name: EndpointDemand(requests=n) for n, name in enumerate(names, 1)}
        scaling = Scaling(pool="p", min_replicas=0, max_replicas=1)
        await store.apply([processes.deployment.model_copy(update={"scaling": scaling})])
        (snapshot,) = await snapshot_where(store, lambda s: states(s) == ["draining"] * 2 + ["ready"])
        await snapshot_where(store, lambda s: serving(s) == 1)
        (stays,) = [one for one in (await store.load()).endpoints["m"] if one.state == "ready"]
        assert stays.name == names[-1]
        assert len(processes.pids()) == 3
        told.endpoints = {}
        await snapshot_where(store, lambda s: states(s) == ["ready"])
        scaler.wanted = 0
        await snapshot_where(store, lambda s: states(s) == [])
