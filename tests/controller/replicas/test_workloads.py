"""A controller scales a workload of a cluster, pod by pod, through what its API server does to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from controller.actuators.catalogue import Surroundings, actuator_of
from controller.replicas import status, workloads
from controller.replicas.config import ReplicasConfig
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from controller.run import Controller
from controller.scaling.wanted import Wanted
from inference.control import health
from inference.introspection import introspect
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Deployment, Scaling
from model_registry.pools import Pool
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from tests.controller.actuators.kubernetes.cluster import Cluster
from tests.controller.actuators.kubernetes.conftest import settings_for
from tests.controller.replicas.conftest import CONTROLLER, FAST, MODEL, ByHand, Told
from tests.controller.replicas.test_live import running, serving, snapshot_where
from tests.model_registry.conftest import eventually, until
from tests.model_registry.patience import patient_config

__all__ = ["patient_config"]

CHAT = Deployment(
    name="chat", model="m", lane="openai-http", scaling=Scaling(pool="k8s", min_replicas=0, max_replicas=8)
)


@pytest.fixture
async def model_port() -> AsyncIterator[int]:
    """One server that answers at every address of the loopback net: what runs in all pods."""

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


class Counted(ByHand):
    """Counts the looks."""

    looks = 0

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand) -> Mapping[str, Wanted]:
        self.looks += 1
        return super().look(now_s, snapshot, demand)


class House:
    """A cluster whose own controllers work, and a controller of ours."""

    def __init__(self, cluster: Cluster, folder: Path, store: RegistryStore, **fields: str) -> None:
        """`fields`: of the pool's actuator."""
        self.cluster = cluster
        self.store = store
        self.scaler, self.told = Counted(), Told(store)
        self.pool = Pool(name="k8s", actuator=settings_for(cluster, folder, **fields))
        self.folder = folder

    def controller(self, config: ReplicasConfig = FAST) -> Controller:
        fence = Fence(config.margin_s)
        surroundings = Surroundings("test", self.folder, {}, fence.token)
        make = partial(actuator_of, surroundings=surroundings)
        replicas = Replicas(self.store, self.scaler, self.told, make, fence, config)
        return Controller(self.store, introspect, health, CONTROLLER, endpoint_ttl_s=1.0, replicas=replicas)

    async def work(self) -> None:
        """What the cluster does by itself: makes pods, makes them ready, takes them down."""
        while True:
            await self.cluster.changed.wait()
            self.cluster.changed.clear()
            await self.cluster.settle()
            await self.cluster.ready()
            await self.cluster.gone()

    async def comes_to(self, true: Callable[[Snapshot], bool]) -> Snapshot:
        (snapshot,) = await snapshot_where(self.store, true)
        return snapshot


@asynccontextmanager
async def house_of(
    plural: str, model_port: int, folder: Path, store: RegistryStore, **fields: str
) -> AsyncIterator[House]:
    async with Cluster(plural, port=model_port, net="127.1.0").running() as cluster:
        house = House(cluster, folder, store, **fields)
        await store.apply([MODEL, house.pool, CHAT])
        working = asyncio.create_task(house.work())
        yield house
        working.cancel()


def states(snapshot: Snapshot) -> list[str]:
    return sorted(one.state for one in snapshot.replicas.get("chat", ()))


@pytest.mark.parametrize("plural", ["deployments", "statefulsets"])
async def test_up_and_down_to_zero(
    plural: str, model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    async with house_of(plural, model_port, tmp_path, store) as house, running(house.controller()):
        house.scaler.wanted = 3
        await house.comes_to(lambda s: states(s) == ["ready"] * 3 and serving(s) == 3)
        assert house.cluster.replicas == 3
        house.scaler.wanted = 1
        await house.comes_to(lambda s: states(s) == ["ready"] and serving(s) == 1)
        await until(lambda: len(house.cluster.pods) == 1)
        house.scaler.wanted = 0
        await house.comes_to(lambda s: states(s) == [])
        await until(lambda: not house.cluster.pods)


async def test_a_pod_with_requests_stays_until_they_have_ended(
    model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    async with house_of("deployments", model_port, tmp_path, store) as house, running(house.controller()):
        house.scaler.wanted = 2
        snapshot = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        busy = [endpoint.name for endpoint in snapshot.endpoints["m"]]
        house.told.endpoints = {name: EndpointDemand(requests=1) for name in busy}
        house.scaler.wanted = 1
        snapshot = await house.comes_to(lambda s: states(s) == ["draining", "ready"] and serving(s) == 1)
        (leaving,) = [one for one in snapshot.replicas["chat"] if one.state == "draining"]
        assert house.cluster.replicas == 2
        house.told.endpoints = {}
        await house.comes_to(lambda s: states(s) == ["ready"])
        assert str(leaving.handle).partition("/")[0] not in house.cluster.pods, (
            "the one that was drained has gone"
        )


async def test_a_pod_that_was_drained_serves_again_where_another_was_taken(
    model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    """One that is not ready just then goes before the one that is marked: so a ReplicaSet has it."""
    async with house_of("deployments", model_port, tmp_path, store) as house, running(house.controller()):
        house.scaler.wanted = 2
        snapshot = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        busy = [endpoint.name for endpoint in snapshot.endpoints["m"]]
        house.told.endpoints = {name: EndpointDemand(requests=1) for name in busy}
        house.scaler.wanted = 1
        snapshot = await house.comes_to(lambda s: states(s) == ["draining", "ready"])
        (drained,) = [str(one.handle) for one in snapshot.replicas["chat"] if one.state == "draining"]
        for pod in house.cluster.pods.values():
            pod.ready = pod.name == drained.partition("/")[0]
        house.told.endpoints = {}

        def serves_again(snapshot: Snapshot) -> bool:
            handles = [one.handle for one in snapshot.replicas.get("chat", ())]
            return states(snapshot) == ["ready"] and handles == [drained] and serving(snapshot) == 1

        await house.comes_to(serves_again)
        assert list(house.cluster.pods) == [drained.partition("/")[0]]


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_another_leader_takes_over_what_runs(
    lost: int, model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    """With its records, and without them: nothing is scaled before it is known what there is."""
    async with house_of("deployments", model_port, tmp_path, store) as house:
        house.scaler.wanted = 2
        async with running(house.controller()):
            before = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        for one in before.replicas["chat"][:lost]:
            await store.delete("Replica", one.name)
        written = [call for call in house.cluster.calls if call[0] == "PUT"]
        looks = house.scaler.looks
        async with running(house.controller()):
            after = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
            await until(lambda: house.scaler.looks > looks + 5)
        handles = [sorted(str(one.handle) for one in s.replicas["chat"]) for s in (before, after)]
        assert handles[0] == handles[1]
        assert [call for call in house.cluster.calls if call[0] == "PUT"] == written
        assert len(house.cluster.pods) == 2


async def test_a_pod_that_kubernetes_takes_away_is_replaced_in_the_records(
    model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    async with house_of("deployments", model_port, tmp_path, store) as house, running(house.controller()):
        house.scaler.wanted = 2
        before = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        victim = next(iter(house.cluster.pods))
        house.cluster.pods[victim].terminating = True
        house.cluster.changed.set()

        def replaced(snapshot: Snapshot) -> bool:
            handles = {str(one.handle).partition("/")[0] for one in snapshot.replicas["chat"]}
            return states(snapshot) == ["ready"] * 2 and victim not in handles and serving(snapshot) == 2

        after = await house.comes_to(replaced)
        assert (
            len({one.name for one in before.replicas["chat"]} & {one.name for one in after.replicas["chat"]})
            == 1
        )
        assert house.cluster.replicas == 2


async def test_a_rolling_update_of_one_pod_leaves_nobody_without_one(
    model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    """The new pod comes up beside the old one, which goes when the new one is ready."""
    async with house_of("deployments", model_port, tmp_path, store) as house, running(house.controller()):
        house.scaler.wanted = 1
        before = await house.comes_to(lambda s: states(s) == ["ready"] and serving(s) == 1)
        house.cluster.replicas = 2  # as the update's surge has it
        await house.cluster.settle()
        house.cluster.replicas = 1
        looks = house.scaler.looks
        await until(lambda: house.scaler.looks > looks + 3)
        assert [one.handle for one in (await store.load()).replicas["chat"]] == [
            before.replicas["chat"][0].handle
        ]
        house.cluster.changed.set()
        await house.cluster.ready()
        next(iter(house.cluster.pods.values())).terminating = True
        house.cluster.changed.set()

        def changed(snapshot: Snapshot) -> bool:
            handles = {one.handle for one in snapshot.replicas["chat"]}
            return (
                states(snapshot) == ["ready"]
                and serving(snapshot) == 1
                and len(handles) == 1
                and (handles.isdisjoint(one.handle for one in before.replicas["chat"]))
            )

        await house.comes_to(changed)
        assert house.cluster.replicas == 1


async def test_where_an_autoscaler_sets_the_number_replicas_are_followed_and_the_first_to_go_marked(
    model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    async with (
        house_of("deployments", model_port, tmp_path, store, scaled_by="autoscaler") as house,
        running(house.controller()),
    ):
        house.scaler.wanted = 2
        await house.comes_to(lambda s: states(s) == ["starting"] * 2 and s.scaling["chat"].wanted == 2)
        house.cluster.replicas = 2
        house.cluster.changed.set()
        await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
        house.scaler.wanted = 1
        await until(lambda: any(pod.annotations for pod in house.cluster.pods.values()))
        (marked,) = [pod.name for pod in house.cluster.pods.values() if pod.annotations]
        house.cluster.replicas = 1
        house.cluster.changed.set()
        await house.comes_to(lambda s: states(s) == ["ready"] and serving(s) == 1)
        assert marked not in house.cluster.pods
        assert not any(method == "PUT" or "/scale" in path for method, path in house.cluster.calls)


async def test_what_holds_a_workload_up_is_told(
    model_port: int, tmp_path: Path, store: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(status, "FIGURES_S", 0.1)
    async with house_of("deployments", model_port, tmp_path, store) as house, running(house.controller()):
        for _ in range(200):
            house.cluster.refuse("PUT", 403, 'deployments.apps "chat" is forbidden')
        house.scaler.wanted = 1

        async def told() -> bool:
            found = (await store.load()).scaling.get("chat")
            return found is not None and 'verbs: ["update"]' in found.reason

        await eventually(told)
        house.cluster.refusals.clear()
        await house.comes_to(lambda s: states(s) == ["ready"])


@pytest.mark.parametrize("plural", ["deployments", "statefulsets"])
async def test_leaders_that_end_at_any_moment_leave_nothing_behind(
    plural: str, model_port: int, tmp_path: Path, store: RegistryStore
) -> None:
    """Whatever the one before had begun, the next one brings to its end."""
    chance = random.Random(plural)
    async with house_of(plural, model_port, tmp_path, store) as house:
        for _ in range(8):
            house.scaler.wanted = chance.randrange(5)
            looks = house.scaler.looks + chance.randrange(1, 6)
            async with running(house.controller()):
                await until(lambda looks=looks: house.scaler.looks > looks)  # type: ignore[misc]
        house.scaler.wanted = 2
        async with running(house.controller()):
            snapshot = await house.comes_to(lambda s: states(s) == ["ready"] * 2 and serving(s) == 2)
            await until(lambda: len(house.cluster.pods) == 2)
            assert house.cluster.replicas == 2
            handles = {str(one.handle).partition("/")[0] for one in snapshot.replicas["chat"]}
            assert handles == house.cluster.pods.keys()
