"""A gateway as it is run, with a real Redis and a real engine, is asked to end while it serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from enginehouse.first_key import create_first_key
from enginehouse.local.ports import free_port
from model_registry.config import RegistryConfig
from model_registry.demand.store import DemandStore
from model_registry.entities import Deployment, Endpoint, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
from model_registry.store import RegistryStore
from tests.command_line import plain_environment
from tests.model_registry.conftest import RedisServer, config, eventually, redis_client, redis_server, store

__all__ = ["config", "redis_client", "redis_server", "store"]

ASK = {
    "model": "m",
    "stream": True,
    "temperature": 0,
    "messages": [{"role": "user", "content": "What is an engine house?"}],
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A CPU engine that takes 60 ms longer for each token: the answer lasts about two seconds."""
    folder = tmp_path_factory.mktemp("engine")
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "emulator.openai_server", "--name", "m", "--ready-file", str(ready)]
    command += ["--model-dir", "emulator/models/depot-chat", "--fault-file", str(folder / "fault.json")]
    (folder / "fault.json").write_text('{"fault": "slow:60"}')
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield str(json.loads(ready.read_text())["base_url"]).removesuffix("/v1")
        process.terminate()


class Gateway:
    """One running gateway and a client with its key."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.port = port
        self.root = f"http://127.0.0.1:{port}"
        self.session = session

    async def readiness(self) -> int | None:
        """Status of `/readyz`; None where nobody listens."""
        try:
            async with self.session.get(f"{self.root}/readyz") as response:
                return response.status
        except aiohttp.ClientConnectionError:
            return None

    async def listens(self) -> bool:
        """Whether a new connection is taken; one that is open already goes on being served."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    async def events(self, begun: asyncio.Event) -> list[Any]:
        """What one stream brings; `begun` is set at its first text."""
        found: list[Any] = []
        try:
            async with self.session.post(f"{self.root}/v1/chat/completions", json=ASK) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    if line.startswith(b"data: "):
                        data = line.removeprefix(b"data: ").strip()
                        found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
                        begun.set()
        except aiohttp.ClientPayloadError:
            found.append("broken off")
        return found


@pytest.fixture
def settings() -> dict[str, str]:
    """Settings of the gateway beside where things are; a test may parametrize it."""
    return {}


@pytest.fixture
async def gateway(
    engine: str,
    store: RegistryStore,
    config: RegistryConfig,
    redis_server: RedisServer,
    settings: dict[str, str],
    tmp_path: Path,
) -> AsyncIterator[Gateway]:
    """Ready, with one endpoint."""
    key = await create_first_key(config, "k", "t", admin=False)
    await store.apply(
        [
            Model(name="m", context_length=2048),
            Deployment(name="d", model="m", lane="openai-http", servers=(ServerRef(http=engine),)),
        ]
    )
    endpoint = Endpoint(
        name="d@engine", deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
        http=engine, state="ready",
    )  # fmt: skip
    await store.register_endpoint(endpoint, ttl_s=600)
    port = free_port()
    environment = plain_environment(
        ENGINEHOUSE_REGISTRY__REDIS_URL=redis_server.url,
        ENGINEHOUSE_REGISTRY__NAME=config.name,
        ENGINEHOUSE_GATEWAY__PORT=str(port),
        **settings,
    )
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-m", "enginehouse", "gateway"], env=environment, stderr=log
        )
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
            gateway = Gateway(process, port, session)

            async def ready() -> bool:
                return await gateway.readiness() == 200

            await eventually(ready, within_s=30, every_s=0.05)
            yield gateway
    finally:
        process.kill()
        process.wait()


async def ended(gateway: Gateway) -> int:
    return await asyncio.wait_for(asyncio.to_thread(gateway.process.wait), 20)


async def test_a_stream_that_is_open_at_sigterm_finishes(gateway: Gateway) -> None:
    begun = asyncio.Event()
    stream = asyncio.create_task(gateway.events(begun))
    await begun.wait()
    gateway.process.send_signal(signal.SIGTERM)

    async def closed() -> bool:
        return not await gateway.listens()

    await eventually(closed)
    assert not stream.done(), "the port closes first"
    *_, last, done = await stream
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    assert await ended(gateway) == 0


@pytest.mark.parametrize("settings", [{"ENGINEHOUSE_GATEWAY__DRAIN_TIMEOUT_S": "0.2"}])
async def test_a_stream_that_is_open_at_the_deadline_is_cut_and_told(gateway: Gateway) -> None:
    begun = asyncio.Event()
    stream = asyncio.create_task(gateway.events(begun))
    await begun.wait()
    gateway.process.send_signal(signal.SIGTERM)
    events = await stream
    assert "[DONE]" not in events
    assert events[-2]["error"]["code"] == "draining"
    assert events[-1] == "broken off"
    assert await ended(gateway) == 0


@pytest.mark.parametrize("settings", [{"ENGINEHOUSE_GATEWAY__DRAIN_NOTICE_S": "0.5"}])
async def test_balancers_see_the_end_coming(gateway: Gateway) -> None:
    """Requests are still served while `/readyz` says that no more should be sent."""
    gateway.process.send_signal(signal.SIGTERM)

    async def unready() -> bool:
        return await gateway.readiness() == 503

    await eventually(unready)
    events = await gateway.events(asyncio.Event())
    assert events[-1] == "[DONE]"
    assert await ended(gateway) == 0


async def test_a_killed_worker_is_known_to_be_gone(
    gateway: Gateway, redis_client: Redis, config: RegistryConfig
) -> None:
    """Its requests are over, as whoever takes its place tells: nobody has to wait whether it comes back."""
    demand, begun = DemandStore.of(redis_client, config), asyncio.Event()

    async def told(in_flight: int) -> bool:
        found = await demand.gather()
        requests = sum(one.requests for one in found.endpoints.values())
        return (found.workers, found.silent, requests) == (1, 0, in_flight)

    stream = asyncio.create_task(gateway.events(begun))
    await begun.wait()
    assert await eventually(lambda: told(1))
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    (worker,) = children.read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert (await stream)[-1] == "broken off"
    assert await eventually(lambda: told(0), within_s=30)


async def test_requests_for_a_model_that_is_not_up_are_held_and_say_so(
    gateway: Gateway, store: RegistryStore, redis_client: Redis, config: RegistryConfig, engine: str
) -> None:
    """Streamed or not: they wait while the controller is told of them, and are answered by who comes."""
    pool = Pool(name="p", actuator=DryRunActuator(type="dry-run"))
    scaled = Deployment(name="d", model="m", lane="openai-http", scaling=Scaling(pool="p", cold_start_s=20))
    await store.set_endpoint_state("d@engine", "gone", "nobody asked for it")
    await store.apply([pool, scaled])
    demand = DemandStore.of(redis_client, config)

    async def ask(stream: bool) -> tuple[int, str | None, bytes]:
        body = {**ASK, "stream": stream, "max_tokens": 3}
        async with gateway.session.post(f"{gateway.root}/v1/chat/completions", json=body) as response:
            return response.status, response.headers.get("x-enginehouse-cold"), await response.read()

    async def held(number: int) -> bool:
        return sum(group.held for group in (await demand.gather()).groups.values()) == number

    async def until_held(stream: bool, number: int) -> asyncio.Task[tuple[int, str | None, bytes]]:
        """Ask until that is held: the gateway may not have heard yet that the endpoint is gone."""
        while True:
            task = asyncio.create_task(ask(stream))
            while not task.done():
                if await held(number):
                    return task

    asked = [await until_held(True, 1), await until_held(False, 2)]
    endpoint = Endpoint(
        name="d@again", deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
        http=engine, state="ready",
    )  # fmt: skip
    await store.register_endpoint(endpoint, ttl_s=600)
    for status, cold, body in await asyncio.gather(*asked):
        assert (status, cold) == (200, "1")
        assert b"content" in body
    assert await eventually(lambda: held(0))
    assert (await ask(False))[:2] == (200, None)
