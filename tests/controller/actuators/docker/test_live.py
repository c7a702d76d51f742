"""Records of a Docker pool's replicas through `docker kill`, controllers that end, and a lost registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from controller.actuators.docker.container import REPLICA_LABEL
from controller.actuators.docker.pool import DockerPool
from controller.replicas.fence import Fence
from controller.replicas.run import Replicas
from controller.run import Controller
from inference.control import health
from inference.introspection import introspect
from model_registry.connection import RedisClient
from model_registry.entities import Deployment, Scaling
from model_registry.pools import DockerActuator, Pool
from model_registry.replicas import Replica
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from tests.controller.actuators.docker.daemon import LISTENS, Daemon
from tests.controller.replicas.conftest import (
    CONTROLLER,
    FAST,
    MODEL,
    ByHand,
    RedisServer,
    Told,
    config,
    redis_client,
    redis_server,
    store,
    told,
)
from tests.controller.replicas.test_live import running
from tests.model_registry.conftest import eventually, until

__all__ = ["RedisServer", "config", "redis_client", "redis_server", "store", "told"]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path / "docker.sock").running() as daemon:
        yield daemon


def objects(daemon: Daemon) -> list[Stored]:
    actuator = DockerActuator(type="docker", image=LISTENS, url=daemon.url, stop_timeout_s=1)
    scaling = Scaling(pool="p", min_replicas=0, max_replicas=5)
    deployment = Deployment(name="d", model="m", lane="openai-http", scaling=scaling)
    return [MODEL, Pool(name="p", actuator=actuator), deployment]


def controller(store: RegistryStore, told: Told, scaler: ByHand) -> Controller:
    fence = Fence(FAST.margin_s)
    replicas = Replicas(store, scaler, told, lambda pool: DockerPool(pool, "test", fence.token), fence, FAST)
    return Controller(store, introspect, health, CONTROLLER, endpoint_ttl_s=1.0, replicas=replicas)


def ready(store: RegistryStore, count: int, but: str = "") -> Awaitable[list[Replica]]:
    """Records, once there are so many, all ready with an endpoint that serves, and none called `but`."""

    async def ask() -> list[Replica]:
        snapshot = await store.load()
        records = list(snapshot.replicas.get("d", ()))
        up = [one.name for one in snapshot.endpoints.get("m", ()) if one.state == "ready"]
        fine = all(one.state == "ready" and one.name != but for one in records)
        return records if fine and len(records) == len(up) == count else []

    return eventually(ask)


def container_of(daemon: Daemon, replica: Replica) -> str:
    (found,) = [
        cid
        for cid, one in daemon.containers.items()
        if one["Config"]["Labels"][REPLICA_LABEL] == replica.name
    ]
    return found


@pytest.mark.parametrize("seen", ["by the leader that started it", "by the next one"])
async def test_a_killed_container_is_replaced_and_others_keep_their_records(
    store: RegistryStore, told: Told, daemon: Daemon, caplog: pytest.LogCaptureFixture, seen: str
) -> None:
    """Nothing of it is left, and nothing is started twice."""
    scaler = ByHand(2)
    await store.apply(objects(daemon))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(controller(store, told, scaler)))
        dead, other = await ready(store, 2)
        if seen == "by the next one":
            await stack.aclose()
        await daemon.end(container_of(daemon, dead), 137)
        if seen == "by the next one":
            await stack.enter_async_context(running(controller(store, told, scaler)))
        after = await ready(store, 2, but=dead.name)
        assert other.handle in {one.handle for one in after}
        assert other.name in {one.name for one in after}
        assert {container_of(daemon, one)[:12] for one in after} == {one.handle for one in after}
        assert (len(daemon.created), len(daemon.containers)) == (3, 2)
        told_of = [one.__dict__ for one in caplog.records if one.message == "a replica's container ended"]
        assert [one["replica"] for one in told_of] == [dead.name]
        scaler.wanted = 0
        await until(lambda: not daemon.containers)


async def test_after_a_loss_of_the_registry_containers_serve_on(
    store: RegistryStore, told: Told, daemon: Daemon, redis_client: RedisClient
) -> None:
    scaler = ByHand(2)
    await store.apply(objects(daemon))
    async with running(controller(store, told, scaler)):
        before = await ready(store, 2)
        await redis_client.flushall()
        await store.apply(objects(daemon))
        after = await ready(store, 2)
        assert {(one.name, one.handle, one.server) for one in after} == {
            (one.name, one.handle, one.server) for one in before
        }
        assert len(daemon.created) == 2
        scaler.wanted = 0
        await until(lambda: not daemon.containers)
