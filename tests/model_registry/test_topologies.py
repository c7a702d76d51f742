"""The registry on a real Redis Cluster and behind a real Sentinel, through a failover."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.exceptions import RedisError

from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Model
from model_registry.errors import RegistryUnavailableError
from model_registry.redis_address import RedisAddress
from model_registry.store import RegistryStore
from model_registry.tenants import Tenant
from model_registry.watcher import Watcher
from tests.model_registry.conftest import DEADLINE_S, eventually, free_port, redis_binary, until

MODEL = Model(name="chat", context_length=4096)
SLOTS = 16384


def wait_for(condition: object, what: str, within_s: float = DEADLINE_S) -> None:
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@contextmanager
def server(folder: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One redis-server until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen([redis_binary(), *arguments, *common], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def client(port: int) -> SyncRedis:
    return SyncRedis(port=port, socket_timeout=2, decode_responses=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[int]]:
    """Ports of three primaries that share the slots."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < 3:
            port = free_port()
            if port < 55_000 and port not in ports:  # the cluster bus listens at port + 10,000
                ports.append(port)
        for port in ports:
            stack.enter_context(server(tmp_path / str(port), port, "--cluster-enabled", "yes"))
        clients = [stack.enter_context(client(port)) for port in ports]
        for number, one in enumerate(clients):
            wait_for(one.ping, "a node answers")
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            one.execute_command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
        for port in ports[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for one in clients:
            wait_for(lambda one=one: "cluster_state:ok" in str(one.execute_command("CLUSTER", "INFO")), "ok")
        yield ports


def config(url: str) -> RegistryConfig:
    return RegistryConfig(
        redis_url=url,
        name="test",
        connect_timeout_s=0.5,
        command_timeout_s=1.0,
        block_s=0.2,
        backoff_max_s=0.2,
    )


async def test_the_registry_lives_in_one_slot_of_a_cluster(cluster: list[int]) -> None:
    """Writes, reads, leadership and the pushed changes work, asked of any node."""
    settings = config("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in cluster))
    store, watching = (RegistryStore.of(connect(settings), settings) for _ in range(2))
    async with Watcher(watching, config=settings) as watcher:
        assert await store.apply([MODEL, Tenant(name="acme")]) == 1
        await until(lambda: watcher.current.version == 1)
        assert watcher.current.model("chat") is not None
        leadership = await store.claim_leadership("one", 5)
        assert leadership is not None
        assert await store.claim_leadership("two", 5) is None
        assert await store.get("Tenant", "acme") == Tenant(name="acme")
    await store.close()
    await watching.close()
    holders = [port for port in cluster if client(port).execute_command("DBSIZE")]
    assert len(holders) == 1


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Port of a sentinel that watches a primary with one replica, and the primary's process."""
    primary_port, replica_port, sentinel_port = free_port(), free_port(), free_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor house 127.0.0.1 {primary_port} 1\n"
        "sentinel down-after-milliseconds house 500\n"
        "sentinel failover-timeout house 2000\n"
    )
    with (
        server(tmp_path / "primary", primary_port) as primary,
        server(tmp_path / "replica", replica_port, "--replicaof", "127.0.0.1", str(primary_port)),
        client(replica_port) as replica,
    ):
        wait_for(lambda: replica.info("replication").get("master_link_status") == "up", "the replica follows")
        watching = subprocess.Popen(
            [
                redis_binary(),
                str(settings),
                "--sentinel",
                "--port",
                str(sentinel_port),
                "--bind",
                "127.0.0.1",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            with client(sentinel_port) as asked:
                wait_for(lambda: asked.sentinel_slaves("house"), "the sentinel knows the replica", 30)
            yield sentinel_port, primary
        finally:
            watching.kill()
            watching.wait()


async def test_a_failover_is_followed(sentinel: tuple[int, subprocess.Popen[bytes]]) -> None:
    """The primary dies: meanwhile the snapshot serves; then writes and pushes go on at the new one."""
    port, primary = sentinel
    settings = config(f"redis+sentinel://127.0.0.1:{port}/house")
    store, watching = (RegistryStore.of(connect(settings), settings) for _ in range(2))
    async with Watcher(watching, config=settings) as watcher:
        await store.apply([MODEL])
        await until(lambda: watcher.current.model("chat") is not None)
        primary.kill()

        async def written() -> bool:
            try:
                return bool(await store.apply([Tenant(name="acme")]))
            except RegistryUnavailableError:
                assert watcher.current.model("chat") is not None
                return False

        assert await eventually(written, within_s=30)
        await until(lambda: "acme" in watcher.current.tenants, within_s=30)
        assert watcher.current.model("chat") is not None
    await store.close()
    await watching.close()


def test_a_url_names_hosts_login_and_service() -> None:
    """Whatever is left out has Redis's own default."""
    found = RedisAddress.of("rediss+sentinel://eva:p%40ss@a,b:7000,[::1]:7001/house/2")
    assert found.hosts == (("a", 26379), ("b", 7000), ("::1", 7001))
    assert (found.username, found.password, found.tls) == ("eva", "p@ss", True)
    assert (found.service, found.db) == ("house", 2)
    assert RedisAddress.of("redis+cluster://a").hosts == (("a", 6379),)
    assert RedisAddress.of("redis+cluster://[::1],[::2]:7001").hosts == (("::1", 6379), ("::2", 7001))
    assert RedisAddress.of("unix:///tmp/redis.sock").kind == "single"


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "redis+sentinel://a:1",
        "redis+cluster://a/0",
        "redis+cluster://a:x",
        "redis+cluster://,",
        "redis+sentinel://a/house/x",
    ],
)
def test_a_url_of_no_known_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis_url"):
        RegistryConfig(redis_url=url)
