"""Two real Tritons are restarted one after the other under streams, of which none may fail."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from controller.config import ControllerConfig
from controller.probing import Probing
from controller.run import Controller
from emulator.engine import EngineLimits
from emulator.triton.repository import EngineSpec, TrtEngineModels
from enginehouse import draining
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.first_key import create_first_key
from enginehouse.local.ports import free_port
from enginehouse.local.triton import TritonProcess
from enginehouse.restarting import Patience, restart, servers_of
from inference.control import health
from inference.introspection import introspect
from inference.probe import probe_inference
from model_registry.config import RegistryConfig
from model_registry.demand.store import DemandStore
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from tests.command_line import plain_environment
from tests.emulator.triton.conftest import MakeServer
from tests.emulator.triton.server import Server
from tests.model_registry.conftest import RedisServer, eventually, redis_client, redis_server, store

__all__ = ["redis_client", "redis_server", "store"]

LIMITS = EngineLimits(max_batch_size=8, max_num_tokens=256, max_seq_len=256, max_input_len=128, kv_blocks=64)
FAST = ControllerConfig(interval_s=0.1, leadership_ttl_s=2.0)
ASK = {"model": "m", "stream": True, "max_tokens": 30, "messages": [{"role": "user", "content": "Well?"}]}


@pytest.fixture
def config(redis_server: RedisServer) -> RegistryConfig:
    """Patient: two Tritons that start leave Redis little of the machine."""
    return RegistryConfig(redis_url=redis_server.url, name="test", command_timeout_s=10.0)


class Fleet:
    """Two servers, a controller and a gateway that continues no broken stream elsewhere."""

    def __init__(self, tritons: list[TritonProcess], connection: Connection, folder: Path) -> None:
        self.tritons = tritons
        self.connection = connection
        self.asked = folder / "restart"
        """Whom the restart command asks for; it waits until the file is gone."""
        self.restarted: list[str] = []
        self.left_there: list[float] = []
        """Requests with the engine when it was ended."""

    @property
    def command(self) -> str:
        return f"sh -c 'echo {{http}} > {self.asked}; while [ -e {self.asked} ]; do sleep 0.05; done'"

    async def restart_as_asked(self, session: aiohttp.ClientSession) -> None:
        while True:
            await eventually(self._is_asked, within_s=300)
            url = self.asked.read_text().strip()
            (triton,) = [one for one in self.tritons if one.http_url == url]
            self.left_there.append(await Server(triton, session).active("tensorrt_llm"))
            await triton.stop(grace_s=0.1)
            await triton.start()
            self.restarted.append(url)
            self.asked.unlink()

    async def _is_asked(self) -> bool:
        return self.asked.exists() and self.asked.read_text().endswith("\n")


async def stream(session: aiohttp.ClientSession, connection: Connection) -> str:
    """How one stream went."""
    try:
        async with session.post(f"{connection.base_url}/chat/completions", json=ASK) as response:
            if response.status != 200:
                return f"{response.status}: {await response.text()}"
            last = b""
            async for line in response.content:
                last = line if line.startswith(b"data: ") else last
            return "whole" if last.strip() == b"data: [DONE]" else f"ended with {last!r}"
    except aiohttp.ClientError as error:
        return f"broken: {error!r}"


@pytest.fixture
async def fleet(
    make_server: MakeServer,
    model_dir: Path,
    store: RegistryStore,
    redis_client: object,
    config: RegistryConfig,
    tmp_path: Path,
) -> AsyncIterator[Fleet]:
    slow = tmp_path / "faults.json"
    slow.write_text(json.dumps({"fault": "slow:20"}))
    tritons = [
        make_server(tmp_path / f"{n}", [TrtEngineModels(EngineSpec(model_dir, LIMITS, fault_file=slow))])
        for n in range(2)
    ]
    key = await create_first_key(config, "k", "t", admin=True)
    port = free_port()
    environment = plain_environment(
        ENGINEHOUSE_REGISTRY__REDIS_URL=config.redis_url,
        ENGINEHOUSE_REGISTRY__NAME=config.name,
        ENGINEHOUSE_GATEWAY__PORT=str(port),
        ENGINEHOUSE_ROUTER__CONTINUE_STREAMS="false",
    )
    connection = Connection(f"http://127.0.0.1:{port}", key, key)
    demand = DemandStore.of(redis_client, config)  # type: ignore[arg-type]
    controller = Controller(
        store, introspect, health, FAST, probing=Probing(probe_inference, FAST, demand.gather)
    )
    with (tmp_path / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-m", "enginehouse", "gateway"], env=environment, stderr=log
        )
    leading = asyncio.create_task(controller.run())
    try:
        for triton in tritons:
            await triton.start()
        servers = tuple(ServerRef(http=triton.http_url) for triton in tritons)
        await store.apply(
            [
                Model(name="m", context_length=200, tokenizer=str(model_dir)),
                Deployment(name="d", model="m", target="tensorrt_llm", servers=servers),
            ]
        )

        async def serves() -> bool:
            return len(await ready(store)) == 2 and await is_up(connection)

        await eventually(serves, within_s=120)
        yield Fleet(tritons, connection, tmp_path)
    finally:
        leading.cancel()
        gateway.kill()
        gateway.wait()
        await asyncio.wait([leading])
        for triton in tritons:
            await triton.stop()


async def ready(store: RegistryStore) -> list[str]:
    found = [one for one in await store.list("Endpoint") if isinstance(one, Endpoint)]
    return [one.http for one in found if one.state == "ready"]


async def is_up(connection: Connection) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{connection.root}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def test_streams_run_through_a_rolling_restart(fleet: Fleet, store: RegistryStore) -> None:
    """No stream fails, none is with a server that is ended, and both are served by the new processes."""
    told: list[str] = []
    results: list[str] = []
    over = asyncio.Event()
    headers = {"Authorization": f"Bearer {fleet.connection.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def client() -> None:
            while not over.is_set():
                results.append(await stream(session, fleet.connection))

        restarts = asyncio.create_task(fleet.restart_as_asked(session))
        clients = [asyncio.create_task(client()) for _ in range(4)]
        servers = await servers_of(
            fleet.connection, [triton.http_url for triton in fleet.tritons], fleet.command
        )
        pids = [triton.pid for triton in fleet.tritons]
        await restart(fleet.connection, servers, Patience(60, 120), told.append)
        over.set()
        await asyncio.gather(*clients)
        restarts.cancel()
    assert set(results) == {"whole"}
    assert len(results) >= 8
    assert fleet.restarted == [triton.http_url for triton in fleet.tritons]
    assert fleet.left_there == [0, 0]
    assert all(triton.pid not in pids for triton in fleet.tritons)
    assert sorted(await ready(store)) == sorted(fleet.restarted)
    assert any("under way" in line for line in told)
    with pytest.raises(CommandError, match="ended with status 3"):
        await restart(
            fleet.connection,
            await servers_of(fleet.connection, [servers[0].url, servers[1].url], "sh -c 'exit 3'"),
            Patience(60, 120),
            told.append,
        )
    assert await ready(store) == [servers[1].url], "it stays drained, and the other is left alone"
    with pytest.raises(CommandError, match="no other endpoint that is ready"):
        await restart(fleet.connection, servers[1:], Patience(60, 120), told.append)
    target = await draining.find(fleet.connection, servers[0].url, "tested")
    assert await draining.undo(fleet.connection, target)

    async def both() -> bool:
        return len(await ready(store)) == 2

    await eventually(both, within_s=60)
