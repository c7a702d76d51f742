"""A running controller keeps endpoints true to real servers, through outages of servers and of Redis."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from controller.config import ControllerConfig
from controller.run import Controller
from inference.control import health
from inference.errors import SchemaError
from inference.introspection import introspect
from inference.schema import Schema
from model_registry.config import RegistryConfig
from model_registry.drains import Drain
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.errors import RegistryUnavailableError
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.controller.conftest import ModelServer, RedisServer
from tests.model_registry.conftest import eventually, until

FAST = ControllerConfig(
    interval_s=0.05,
    probe_timeout_s=0.5,
    introspection_timeout_s=1.0,
    unhealthy_after=2,
    drain_s=0.3,
    leadership_ttl_s=1.0,
)
MODEL = Model(name="m", context_length=100)


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[Controller]:
    task = asyncio.create_task(controller.run())
    yield controller
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.fixture
async def deployment(store: RegistryStore, model_server: ModelServer) -> Deployment:
    server = ServerRef(http=model_server.url)
    deployment = Deployment(name="d", model="m", lane="openai-http", servers=(server,))
    await store.apply([MODEL, deployment])
    return deployment


@pytest.fixture
async def controller(store: RegistryStore, deployment: Deployment) -> AsyncIterator[Controller]:
    async with running(Controller(store, introspect, health, FAST, endpoint_ttl_s=1.0)) as controller:
        yield controller


def endpoint_where(store: RegistryStore, wanted: Callable[[Endpoint], bool]) -> Awaitable[list[Endpoint]]:
    """The endpoints, once there is one of which `wanted` holds."""

    async def ask() -> list[Endpoint]:
        try:
            endpoints = [item for item in await store.list("Endpoint") if isinstance(item, Endpoint)]
        except RegistryUnavailableError:
            return []
        return [endpoint for endpoint in endpoints if wanted(endpoint)]

    return eventually(ask)


async def test_a_server_that_comes_up_goes_down_and_comes_back_is_followed(
    store: RegistryStore, controller: Controller, model_server: ModelServer
) -> None:
    (endpoint,) = await endpoint_where(store, lambda e: e.state == "ready")
    assert (endpoint.lane, endpoint.target, endpoint.http) == ("openai-http", "m", model_server.url)
    await model_server.stop()
    (endpoint,) = await endpoint_where(store, lambda e: e.state == "unhealthy")
    assert "not ready" in str(endpoint.reason)
    await model_server.start()
    (endpoint,) = await endpoint_where(store, lambda e: e.state == "ready")
    assert endpoint.reason is None


async def test_a_server_that_is_not_up_yet_is_shown_as_starting(
    store: RegistryStore, deployment: Deployment, model_server: ModelServer
) -> None:
    model_server.serving = False
    async with running(Controller(store, introspect, health, FAST)):
        await endpoint_where(store, lambda e: e.state == "starting" and e.reason is not None)
        model_server.serving = True
        await endpoint_where(store, lambda e: e.state == "ready")


async def test_an_unknown_schema_is_described(store: RegistryStore, deployment: Deployment) -> None:
    async def unknown(server: ServerRef, target: str, lane: str) -> Schema:
        raise SchemaError(f"{target}: inputs prompt, seed are of no schema known here")

    async with running(Controller(store, unknown, health, FAST)):
        (endpoint,) = await endpoint_where(store, lambda e: e.state == "unhealthy")
    assert "inputs prompt, seed" in str(endpoint.reason)


async def test_a_server_that_answers_like_no_other_holds_up_no_other(
    store: RegistryStore, model_server: ModelServer
) -> None:
    async def strange(server: ServerRef, target: str, lane: str) -> Schema:
        if target == "strange":
            raise TypeError("'NoneType' object is not iterable")
        return await introspect(server, target, lane)

    servers = (ServerRef(http=model_server.url),)
    names = {"d": "m", "s": "strange"}
    deployments = [
        Deployment(name=name, model="m", target=target, lane="openai-http", servers=servers)
        for name, target in names.items()
    ]
    await store.apply([MODEL, *deployments])
    async with running(Controller(store, strange, health, FAST)):
        await endpoint_where(store, lambda e: e.deployment == "d" and e.state == "ready")
        told = await endpoint_where(store, lambda e: e.deployment == "s" and e.reason is not None)
    assert "could not be understood (TypeError" in str(told[0].reason)


async def test_what_was_learnt_of_another_target_is_not_taken_for_this_one(
    store: RegistryStore, deployment: Deployment
) -> None:
    asked, applied = asyncio.Event(), asyncio.Event()

    async def slow(server: ServerRef, target: str, lane: str) -> Schema:
        if target == "m":
            asked.set()
            await applied.wait()
        return await introspect(server, target, lane)

    async with running(Controller(store, slow, health, FAST)):
        await asked.wait()
        await store.apply([deployment.model_copy(update={"target": "other"})])
        applied.set()
        (endpoint,) = await endpoint_where(store, lambda e: e.state == "ready" and e.asked_target == "other")
    assert endpoint.target == "other"


async def test_a_deleted_deployment_drains_and_then_its_endpoint_goes(
    store: RegistryStore, controller: Controller
) -> None:
    await endpoint_where(store, lambda e: e.state == "ready")
    await store.delete("Deployment", "d")
    await endpoint_where(store, lambda e: e.state == "draining")

    async def gone() -> bool:
        return not await store.list("Endpoint")

    await eventually(gone)


async def test_a_drain_outlives_leaders_and_ends_when_it_is_taken_back(
    store: RegistryStore, deployment: Deployment, model_server: ModelServer
) -> None:
    """Longer than endpoints that drain for good are kept, and while nobody looks at the server."""
    await store.apply([Drain(name="s", server=model_server.url, reason="new driver")])
    brief = FAST.model_copy(update={"drain_s": 0.05})
    for _ in range(2):
        async with running(Controller(store, introspect, health, brief, endpoint_ttl_s=0.4)):
            await store.delete("Drain", "s")
            await endpoint_where(store, lambda e: e.state == "ready")
            await store.apply([Drain(name="s", server=model_server.url, reason="new driver")])
            (endpoint,) = await endpoint_where(store, lambda e: e.state == "draining")
            assert endpoint.reason == "new driver"
        asked = model_server.asked
        async with running(Controller(store, introspect, health, brief, endpoint_ttl_s=0.4)):
            until_ms = (await store.renew([endpoint.name], 0.2)).as_of_ms + 400
            while (await store.renew([], 1)).as_of_ms < until_ms:
                assert await store.list("Endpoint") == [endpoint]
        assert model_server.asked == asked


async def test_a_changed_deployment_reaches_its_endpoint(
    store: RegistryStore, controller: Controller, deployment: Deployment
) -> None:
    await endpoint_where(store, lambda e: e.state == "ready")
    await store.apply([deployment.model_copy(update={"max_concurrency": 5, "profile": "latency"})])
    (endpoint,) = await endpoint_where(store, lambda e: e.max_concurrency == 5)
    assert (endpoint.profile, endpoint.state) == ("latency", "ready")


async def test_a_change_is_acted_upon_at_once_when_it_is_told(
    store: RegistryStore, config: RegistryConfig, deployment: Deployment
) -> None:
    slow = FAST.model_copy(update={"interval_s": 30.0})
    controller = Controller(store, introspect, health, slow)
    async with Watcher(store, on_change=controller.registry_changed, config=config), running(controller):
        await endpoint_where(store, lambda e: e.state == "ready")
        await store.apply([deployment.model_copy(update={"max_concurrency": 5})])
        await endpoint_where(store, lambda e: e.max_concurrency == 5)


async def test_a_server_that_hangs_holds_up_no_other(store: RegistryStore, model_server: ModelServer) -> None:
    hanging = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    servers = (ServerRef(http=f"http://127.0.0.1:{port}"), ServerRef(http=model_server.url))
    await store.apply([MODEL, Deployment(name="d", model="m", lane="openai-http", servers=servers)])
    patient = FAST.model_copy(update={"probe_timeout_s": 30.0, "introspection_timeout_s": 30.0})
    async with running(Controller(store, introspect, health, patient, endpoint_ttl_s=0.5)):
        asked = model_server.asked
        await endpoint_where(store, lambda e: e.http == model_server.url and e.state == "ready")
        await until(lambda: model_server.asked > asked + 5)
    hanging.close()


@pytest.mark.parametrize("outage", ["killed", "paused"])
async def test_an_outage_of_redis_longer_than_endpoints_live_takes_none_away(
    redis_server: RedisServer,
    store: RegistryStore,
    deployment: Deployment,
    config: RegistryConfig,
    outage: str,
) -> None:
    gone: list[int] = []
    controller = Controller(store, introspect, health, FAST, endpoint_ttl_s=0.3)
    async with running(controller):
        await endpoint_where(store, lambda e: e.state == "ready")
        watcher = Watcher(store, config=config)
        await watcher.start()
        watcher._on_change = lambda snapshot: (
            gone.append(snapshot.version) if not snapshot.endpoints else None
        )
        redis_server.kill() if outage == "killed" else redis_server.signal(signal.SIGSTOP)
        await until(lambda: watcher.staleness_s > 1.2)
        redis_server.start() if outage == "killed" else redis_server.signal(signal.SIGCONT)
        await until(lambda: watcher.connected and controller.leadership is not None)
        rounds = await store.renew([], 1)
        await eventually(lambda: _redis_time_passed(store, rounds.as_of_ms + 500))
        await watcher.close()
    assert gone == []
    assert [e.state for e in await endpoint_where(store, lambda e: True)] == ["ready"]


async def _redis_time_passed(store: RegistryStore, until_ms: int) -> bool:
    return (await store.renew([], 1)).as_of_ms > until_ms


async def test_an_emptied_registry_gets_its_endpoints_back_when_deployments_return(
    redis_client: Redis, store: RegistryStore, controller: Controller, deployment: Deployment
) -> None:
    await endpoint_where(store, lambda e: e.state == "ready")
    await redis_client.flushall()
    await store.apply([MODEL, deployment])
    await endpoint_where(store, lambda e: e.state == "ready")


async def test_one_of_many_leads_and_another_takes_over(
    store: RegistryStore, deployment: Deployment, model_server: ModelServer
) -> None:
    first, second = (Controller(store, introspect, health, FAST) for _ in range(2))
    async with running(second):
        async with running(first):
            await until(lambda: (first.leadership is None) != (second.leadership is None))
            follower = second if first.leadership else first
            assert follower.leadership is None
        await until(lambda: second.leadership is not None)
        await endpoint_where(store, lambda e: e.state == "ready")
        model_server.serving = False
        await endpoint_where(store, lambda e: e.state == "unhealthy")


def test_a_claim_that_lapses_between_two_looks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"leadership_ttl_s \(4\) must be above 2 x interval_s \(3\)"):
        ControllerConfig(interval_s=3.0)


async def test_a_leader_that_hands_over_is_followed_at_once(
    store: RegistryStore, deployment: Deployment
) -> None:
    patient = FAST.model_copy(update={"leadership_ttl_s": 3600.0})
    async with running(Controller(store, introspect, health, patient)) as first:
        await until(lambda: first.leadership is not None)
    async with running(Controller(store, introspect, health, FAST)) as second:
        await until(lambda: second.leadership is not None)
