"""Pools of Tritons: loads and unloads by the repository API, taking over what is there.

The servers answer as the API does, and load when the test lets them; `bench.scale` runs it on real ones.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from controller.actuators import triton
from controller.actuators.port import ActuatorError
from controller.actuators.triton import TritonPool
from controller.replicas.census import Census
from controller.replicas.config import ReplicasConfig
from controller.replicas.fence import Fence, NotLeadingError
from controller.replicas.run import Replicas
from inference.errors import ServerTimeoutError
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.leadership import Leadership
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica
from model_registry.store import RegistryStore
from tests.controller.replicas.conftest import MODEL, ByHand, Told
from tests.model_registry.conftest import until


class Repository:
    """One server's: models with their states, and what was asked of them."""

    def __init__(self, **states: str) -> None:
        self.states = states
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.may_tell = asyncio.Event()
        self.may_tell.set()
        self.refuses: str | None = None
        self._server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v2/repository/index", self._index)
        app.router.add_post("/v2/repository/models/{name}/load", self._load)
        app.router.add_post("/v2/repository/models/{name}/unload", self._unload)
        app.router.add_get("/v2/models/{name}/ready", self._ready)
        self._server = TestServer(app)
        await self._server.start_server()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _index(self, _: web.Request) -> web.Response:
        await self.may_tell.wait()
        return web.json_response(
            [{"name": name, "version": "1", "state": state} for name, state in self.states.items()]
        )

    async def _load(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.asked.append(("load", name, await request.json()))
        if self.refuses is not None:
            return web.json_response({"error": self.refuses}, status=400)
        self.states[name] = "LOADING"
        await self.may_load.wait()
        self.states[name] = "READY"
        return web.Response()

    async def _unload(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self.asked.append(("unload", name, await request.json()))
        self.states[name] = "UNLOADING"
        asyncio.get_running_loop().call_later(0.05, self.states.__setitem__, name, "UNAVAILABLE")
        return web.Response()

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self.states.get(request.match_info["name"]) == "READY"
        return web.Response(status=200 if ready else 400)

    def verbs(self) -> list[tuple[str, str]]:
        return [(verb, name) for verb, name, _ in self.asked]


@pytest.fixture
async def servers() -> AsyncIterator[list[Repository]]:
    servers = [Repository(m="UNAVAILABLE", x="UNAVAILABLE"), Repository(m="UNAVAILABLE", x="UNAVAILABLE")]
    for server in servers:
        await server.start()
    yield servers
    for server in servers:
        server.may_load.set()
        server.may_tell.set()
        await server.stop()


@pytest.fixture
def fence() -> Fence:
    fence = Fence(0.0)
    fence.renew(Leadership("c", 1))
    return fence


@pytest.fixture
async def pool(servers: list[Repository], fence: Fence) -> AsyncIterator[TritonPool]:
    """Both servers have the same GPU."""
    of = tuple(PoolServer(http=one.url, grpc="t:8001", gpu="0") for one in servers)
    pool = TritonPool(Pool(name="p", actuator=TritonActuator(type="triton", servers=of)), fence.token)
    yield pool
    await pool.close()


def replica(server: Repository, target: str = "m", **fields: str) -> Replica:
    base = {"name": f"d.{target}", "deployment": "d", "model": "m", "pool": "p"}
    return Replica.model_validate({**base, "place": server.url, "target": target, **fields})


def deployment(**load: str) -> Deployment:
    return Deployment(name="d", model="m", scaling=Scaling(pool="p", load=load))


async def test_a_model_is_loaded_as_the_deployment_says(pool: TritonPool, servers: list[Repository]) -> None:
    running = await pool.start(replica(servers[0]), deployment(config='{"max_batch_size": 4}'))
    assert servers[0].asked == [("load", "m", {"parameters": {"config": '{"max_batch_size": 4}'}})]
    assert running.handle == f"m@{servers[0].url}"
    assert running.server is not None
    assert (running.server.http, running.server.grpc) == (servers[0].url, "t:8001")
    assert [one.handle for one in (await pool.found()).found] == [running.handle]


async def test_what_is_loaded_is_taken_over(pool: TritonPool, servers: list[Repository]) -> None:
    """Triton would load it anew, beside requests that it serves."""
    servers[0].states["m"] = "READY"
    await pool.start(replica(servers[0]), deployment())
    assert servers[0].asked == []


async def test_what_another_leader_began_to_load_is_waited_for(
    pool: TritonPool, servers: list[Repository]
) -> None:
    servers[0].states["m"] = "LOADING"
    starting = asyncio.create_task(pool.start(replica(servers[0]), deployment()))
    asyncio.get_running_loop().call_later(0.1, servers[0].states.__setitem__, "m", "READY")
    await starting
    assert servers[0].asked == []


async def test_servers_of_a_gpu_load_one_at_a_time(pool: TritonPool, servers: list[Repository]) -> None:
    """Whoever asked for the load that is under way."""
    for server in servers:
        server.may_load.clear()
    loads = [
        asyncio.create_task(pool.start(replica(server, target), deployment()))
        for server, target in ((servers[0], "m"), (servers[1], "x"))
    ]
    await until(lambda: servers[0].verbs() == [("load", "m")])
    servers[0].may_load.set()
    await until(lambda: servers[1].verbs() == [("load", "x")])
    assert servers[0].states["m"] == "READY", "not before the first was done"
    servers[1].may_load.set()
    await asyncio.gather(*loads)
    servers[0].states["x"] = "LOADING"
    servers[1].states["m"] = "UNAVAILABLE"
    waiting = asyncio.create_task(pool.start(replica(servers[1]), deployment()))
    asyncio.get_running_loop().call_later(0.15, servers[0].states.__setitem__, "x", "READY")
    await waiting
    assert servers[1].verbs() == [("load", "x"), ("load", "m")]
    assert servers[0].states["x"] == "READY"


async def test_an_unload_lasts_until_the_model_is_gone(pool: TritonPool, servers: list[Repository]) -> None:
    servers[0].states["m"] = "READY"
    await pool.stop(replica(servers[0]), None)
    assert servers[0].states["m"] == "UNAVAILABLE"
    assert servers[0].asked == [("unload", "m", {"parameters": {"unload_dependents": True}})]
    await pool.stop(replica(servers[0]), None)
    assert len(servers[0].asked) == 1, "what is gone is not unloaded again"


async def test_a_refusal_says_why_and_where(pool: TritonPool, servers: list[Repository]) -> None:
    servers[0].refuses = "failed to load 'm', no version is available"
    with pytest.raises(ActuatorError, match=r"'m' was not loaded on http.*no version is available"):
        await pool.start(replica(servers[0]), deployment())


async def test_what_cannot_be_asked_for_soon_is_not_asked_for() -> None:
    """The claim by which it is asked may have lapsed by the time a connection is made."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    clients = [socket.socket() for _ in range(4)]
    for client in clients:  # so that no other gets through
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
    control = triton.TritonControl(ServerRef(http=url))
    for act in (control.load, control.unload):
        began_s = time.monotonic()
        with pytest.raises(ServerTimeoutError):
            await act("m", connect_s=0.2)
        assert time.monotonic() - began_s < 1.5, "not the whole time that it may last"
    await control.close()
    for one in (listening, *clients):
        one.close()


async def test_a_server_that_is_away_tells_nothing(pool: TritonPool, servers: list[Repository]) -> None:
    """Not that it has nothing: whatever was loaded there may still be. What others have is told."""
    where = replica(servers[1])
    servers[0].states["x"] = "READY"
    await servers[1].stop()
    listing = await pool.found()
    assert [one.handle for one in listing.found] == [f"x@{servers[0].url}"]
    assert list(listing.unheard) == [where.place]
    assert "does not tell what it has loaded" in listing.unheard[where.place or ""]
    with pytest.raises(ActuatorError, match="was not unloaded"):
        await pool.stop(where, None)


async def test_a_server_that_hangs_hides_no_loss_on_another(
    pool: TritonPool, servers: list[Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is on the one that hangs nothing is said, neither that it is there nor that it is lost."""
    monkeypatch.setattr(triton, "LIST_S", 0.2)
    records = [
        replica(server, state="ready", handle=f"m@{server.url}", name=f"d.{number}")
        for number, server in enumerate(servers)
    ]
    for server in servers:
        server.states["m"] = "READY"
    census = Census(ReplicasConfig(look_s=0.01))
    assert census.lost(records) == set()
    servers[0].states["m"] = "UNAVAILABLE"
    servers[1].may_tell.clear()

    def lost() -> set[str]:
        census.look({"p": pool})
        return census.lost(records)

    await until(lambda: lost() == {"d.0"})
    servers[1].may_tell.set()
    servers[1].states["m"] = "UNAVAILABLE"
    await until(lambda: lost() == {"d.0", "d.1"})
    await census.drop()


async def test_what_is_loaded_late_is_known_by_the_record_that_it_had(
    pool: TritonPool, servers: list[Repository]
) -> None:
    """By a leader that was frozen right before its act, after the next one had undone what was begun."""
    record = replica(servers[0], name="d.00000a")
    census = Census(ReplicasConfig(look_s=0.01))

    def known(*records: Replica) -> dict[str, bool]:
        census.look({"p": pool})
        return {one.found.handle: one.was_known for one in census.nameless(records)}

    servers[1].states["m"] = "READY"
    await until(lambda: known(record) == {f"m@{servers[1].url}": False})
    servers[0].states["m"] = "READY"
    await until(lambda: known() == {f"m@{servers[0].url}": True, f"m@{servers[1].url}": False})
    assert known(record) == {f"m@{servers[1].url}": False}
    await census.drop()


async def test_after_a_loss_of_the_registry_models_stay_where_they_are(
    store: RegistryStore, told: Told, servers: list[Repository], fence: Fence
) -> None:
    """Each is the replica of the deployment that calls it so; what is nobody's is left alone."""
    servers[0].states["m"] = servers[1].states["x"] = servers[1].states["y"] = "READY"
    spec = TritonActuator(type="triton", servers=tuple(PoolServer(http=one.url) for one in servers))
    replicas = Replicas(store, ByHand(1), told, lambda pool: TritonPool(pool, fence.token), fence)
    leadership = await store.claim_leadership("me", 60)
    other = deployment().model_copy(update={"name": "e", "target": "x"})
    await store.apply([MODEL, Pool(name="p", actuator=spec), deployment(), other])
    await replicas.act(await store.load(), leadership)
    await until(lambda: len(replicas._errands.outcomes) == 2)
    await replicas.act(await store.load(), leadership)
    records = [one for group in (await store.load()).replicas.values() for one in group]
    assert {(one.deployment, one.handle) for one in records} == {
        ("d", f"m@{servers[0].url}"),
        ("e", f"x@{servers[1].url}"),
    }
    assert servers[0].asked == servers[1].asked == []
    await replicas.close()


async def test_a_server_that_left_the_pool_gets_nothing(pool: TritonPool, servers: list[Repository]) -> None:
    elsewhere = replica(servers[0], place="http://127.0.0.1:9")
    with pytest.raises(ActuatorError, match="is no server of pool 'p'"):
        await pool.start(elsewhere, deployment())


async def test_without_the_claim_nothing_is_asked(
    pool: TritonPool, servers: list[Repository], fence: Fence
) -> None:
    fence.renew(None)
    servers[1].states["m"] = "READY"
    with pytest.raises(NotLeadingError):
        await pool.start(replica(servers[0]), deployment())
    with pytest.raises(NotLeadingError):
        await pool.stop(replica(servers[1]), None)
    assert servers[0].asked == servers[1].asked == []
