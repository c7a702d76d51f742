"""`enginehouse drain` and what `enginehouse restart` begins with, against the admin API and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.restarting import Patience, restart, servers_of
from gateway.admin import admin_routes
from gateway.demand import demand_routes
from model_registry.demand.demand import EndpointDemand, GroupDemand, WorkerDemand
from model_registry.demand.store import DemandStore
from model_registry.drains import Drain
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.pools import Pool
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.command_line import begun, said_at_ctrl_c
from tests.enginehouse.test_history import run
from tests.gateway.test_admin import ADMIN, Admin, guarded, watcher
from tests.model_registry.conftest import config, demand, eventually, redis_client, redis_server, store

__all__ = ["config", "demand", "redis_client", "redis_server", "store", "watcher"]

SERVERS = ("http://a:8000", "http://b:8000/")


@pytest.fixture
async def admin(store: RegistryStore, watcher: Watcher, demand: DemandStore) -> AsyncIterator[Admin]:
    servers = tuple(ServerRef(http=url) for url in SERVERS)
    await store.apply(
        [
            Model(name="m", context_length=9),
            Deployment(name="d", model="m", lane="openai-http", servers=servers),
        ]
    )
    for name, url in zip("ab", SERVERS, strict=True):
        endpoint = Endpoint(
            name=f"d@{name}:8000", deployment="d", model="m", profile="balanced", lane="openai-http",
            target="m", http=url, state="ready", max_concurrency=4,
        )  # fmt: skip
        await store.register_endpoint(endpoint, ttl_s=60)
    app = web.Application()
    app.add_routes(guarded([*admin_routes(store, watcher), *demand_routes(demand, watcher.reader())]))
    async with TestClient(TestServer(app), headers={"Authorization": f"Bearer {ADMIN}"}) as client:
        yield client


def connection_to(admin: Admin) -> Connection:
    return Connection(str(admin.make_url("/")).rstrip("/"), None, ADMIN)


async def drains(store: RegistryStore) -> list[Drain]:
    return [one for one in await store.list("Drain") if isinstance(one, Drain)]


@pytest.mark.parametrize("target", ["http://b:8000", "b:8000", "http://b:8000/"])
async def test_a_server_is_drained_and_taken_back(admin: Admin, store: RegistryStore, target: str) -> None:
    assert await run(admin, "drain", target, "--reason", "new driver") == (
        "http://b:8000/ drains: 1 endpoint\n"
    )
    assert await drains(store) == [Drain(name="b-8000", server=SERVERS[1], reason="new driver")]
    assert "new driver" in await run(admin, "get", "drains")
    assert await run(admin, "drain", target, "--undo") == "http://b:8000/ takes requests again\n"
    assert await run(admin, "drain", target, "--undo") == "http://b:8000/ was not drained\n"
    assert await drains(store) == []


async def test_an_endpoint_is_drained_alone(admin: Admin, store: RegistryStore) -> None:
    await run(admin, "drain", "d@a:8000")
    assert [one.endpoint for one in await drains(store)] == ["d@a:8000"]


async def test_waiting_is_for_reports_that_are_newer_than_the_drain(
    admin: Admin, store: RegistryStore, demand: DemandStore
) -> None:
    """What was told before a gateway heard of it proves nothing, though it says that nothing is there."""
    await demand.report("w", WorkerDemand())
    waiting = asyncio.create_task(run(admin, "drain", "d@a:8000", "--wait"))
    await eventually(lambda: drains(store))
    await store.set_endpoint_state("d@a:8000", "draining", "asked for")
    busy = WorkerDemand(endpoints={"d@a:8000": EndpointDemand(requests=2)})
    until_s = (await demand.gather()).at_s + 1.5
    while (await demand.gather()).at_s < until_s:
        assert not waiting.done()
        await demand.report("w", busy)
    await demand.report("w", WorkerDemand())
    *_, before, last = (await waiting).splitlines()
    assert (before, last) == ("d@a:8000: 2 requests under way", "d@a:8000: nothing is under way there")


async def test_what_is_not_there_is_told_with_what_is(admin: Admin) -> None:
    with pytest.raises(CommandError) as error:
        await servers_of(connection_to(admin), ["http://c:1"], None)
    assert "no endpoint and no server 'http://c:1'" in error.value.message
    assert "d@a:8000, d@b:8000" in str(error.value.remedy)
    assert "http://a:8000" in str(error.value.remedy)


async def test_a_pools_servers_are_restarted_by_its_own_command_or_a_given_one(
    admin: Admin, store: RegistryStore
) -> None:
    actuator = {
        "type": "triton",
        "servers": [{"http": url} for url in SERVERS],
        "recycle": ["again", "--at={http}"],
    }
    made = {"gpus": actuator, "made": {"type": "process", "command": ["vllm"]}}
    await store.apply([Pool.model_validate({"name": n, "actuator": how}) for n, how in made.items()])
    connection = connection_to(admin)
    own = await servers_of(connection, ["gpus", "a:8000"], None)
    assert [one.filled() for one in own] == [["again", f"--at={url}"] for url in SERVERS]
    given = await servers_of(connection, ["a:8000"], "ssh {host} 'restart it' {port}")
    assert [one.filled() for one in given] == [["ssh", "a", "restart it", "8000"]]
    for target, why in (("made", "of type process"), ("d@a:8000", "is an endpoint")):
        with pytest.raises(CommandError, match=why):
            await servers_of(connection, [target], None)


async def test_a_server_without_a_command_is_not_begun_with(admin: Admin) -> None:
    with pytest.raises(CommandError, match="how http://a:8000 is restarted is not known"):
        await servers_of(connection_to(admin), ["a:8000"], None)


async def test_a_restart_waits_for_room_on_the_others_and_gives_up(
    admin: Admin, store: RegistryStore, demand: DemandStore
) -> None:
    """Of four slots elsewhere five are needed; nothing is drained."""
    load = WorkerDemand(
        groups={"m:balanced": GroupDemand(waiting=2)},
        endpoints={f"d@{name}:8000": EndpointDemand(requests=n) for name, n in (("a", 1), ("b", 2))},
    )
    await demand.report("w", load)
    told: list[str] = []
    connection = connection_to(admin)
    servers = await servers_of(connection, ["a:8000"], "false")
    with pytest.raises(CommandError, match="stopped at http://a:8000: no room for its requests elsewhere"):
        await restart(connection, servers, Patience(5, 0.1), told.append)
    assert told[1:] == ["http://a:8000: waiting for room elsewhere: m needs 5 slots, the others have 4"]
    assert await drains(store) == []


@pytest.mark.parametrize(
    ("command", "left", "stays"),
    [
        (("drain", "--wait"), "http://a:8000 stays drained; --undo ends that", True),
        (
            ("restart", "--force", "--command", "false"),
            "http://a:8000: not restarted; it takes requests again",
            False,
        ),
    ],
    ids=["drain", "restart"],
)
async def test_ctrl_c_says_whether_a_drain_stands(
    admin: Admin, store: RegistryStore, command: tuple[str, ...], left: str, stays: bool
) -> None:
    """While it waits for what is under way there."""
    name, *options = command
    where = ("--url", str(admin.make_url("/")), "--key", ADMIN)
    with begun(name, "http://a:8000", *options, *where) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)
        await eventually(lambda: drains(store))
        said = await asyncio.to_thread(said_at_ctrl_c, process)
    assert said == f"stopped: {left}"
    assert bool(await drains(store)) is stays
