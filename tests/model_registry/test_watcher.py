"""The watcher converges after everything that can happen to Redis, and never takes serving down."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.errors import RegistryReadOnlyError, RegistryUnavailableError
from model_registry.snapshot import Snapshot
from model_registry.store import RegistryStore
from model_registry.watcher import Watcher
from tests.model_registry.conftest import RedisServer, until

MODEL = Model(name="chat", context_length=4096)
DEPLOYMENT = Deployment(name="chat-a", model="chat", servers=(ServerRef(http="http://a:8000"),))
ENDPOINT = Endpoint(
    name="chat-a@a:8000",
    deployment="chat-a",
    model="chat",
    profile="balanced",
    lane="tensorrt_llm",
    target="tensorrt_llm",
    http="http://a:8000",
    state="ready",
)


@pytest.fixture
async def watcher(store: RegistryStore, config: RegistryConfig) -> AsyncIterator[Watcher]:
    """A watcher that serves one model with one ready endpoint."""
    await store.apply([MODEL, DEPLOYMENT])
    await store.register_endpoint(ENDPOINT, 60)
    async with Watcher(store, config=config) as watcher:
        yield watcher


def model(n: int) -> Model:
    return Model(name=f"m{n}", context_length=n + 1)


async def apply_when_possible(store: RegistryStore, n: int) -> int:
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.apply([model(n)])
            except RegistryUnavailableError:
                await asyncio.sleep(0.02)


async def converged(watcher: Watcher, store: RegistryStore) -> None:
    """The watcher is connected and shows exactly what the registry holds."""
    loaded = await store.load()
    await until(lambda: watcher.connected and watcher.current.version == loaded.version)
    assert list(watcher.current.objects()) == list(loaded.objects())


async def test_changes_are_pushed_and_applied_without_reading_everything_anew(
    store: RegistryStore, watcher: Watcher
) -> None:
    for n in range(20):
        await store.apply([model(n)])
    await store.delete("Model", "m3")
    await converged(watcher, store)
    assert watcher.resyncs.total() == 1


async def test_a_snapshot_that_a_request_holds_never_changes(store: RegistryStore, watcher: Watcher) -> None:
    held = watcher.current
    version = await store.apply([model(1)])
    assert await watcher.wait_for(version)
    assert "m1" not in held.models
    assert "m1" in watcher.current.models


async def test_listeners_get_every_new_snapshot_and_may_fail(
    store: RegistryStore, config: RegistryConfig
) -> None:
    seen: list[Snapshot] = []

    def listen(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        raise RuntimeError("a listener's own trouble")

    async with Watcher(store, on_change=listen, config=config) as watcher:
        version = await store.apply([MODEL])
        assert await watcher.wait_for(version)
    assert seen[-1].version == version


async def test_a_killed_redis_is_found_again_with_what_was_written_meanwhile(
    redis_server: RedisServer, store: RegistryStore, watcher: Watcher
) -> None:
    served = watcher.current
    redis_server.kill()
    await until(lambda: not watcher.connected)
    assert watcher.current is served
    redis_server.start()
    await apply_when_possible(store, 1)
    await converged(watcher, store)


async def test_a_paused_redis_is_noticed_and_found_again(
    redis_server: RedisServer, store: RegistryStore, watcher: Watcher
) -> None:
    served = watcher.current
    redis_server.signal(signal.SIGSTOP)
    await until(lambda: not watcher.connected)
    await until(lambda: watcher.staleness_s > 0.6)
    assert watcher.current is served
    redis_server.signal(signal.SIGCONT)
    await apply_when_possible(store, 1)
    await converged(watcher, store)
    assert watcher.staleness_s < 0.6


async def test_killed_connections_lose_no_change(
    redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    for n in range(5):
        await redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await apply_when_possible(store, n)
    await converged(watcher, store)


async def test_an_emptied_registry_does_not_end_serving(
    redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    await redis_client.flushall()
    await until(lambda: watcher.held_back is not None)
    assert watcher.current.model("chat") == MODEL.model_copy(
        update={"created": watcher.current.models["chat"].created}
    )
    assert [e.state for e in watcher.current.endpoints["chat"]] == ["ready"]
    assert watcher.connected
    assert "emptied" in str(watcher.held_back)


async def test_what_is_applied_to_an_emptied_registry_is_served_and_endpoints_outlast_the_gap(
    redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    await redis_client.flushall()
    await until(lambda: watcher.held_back is not None)
    await store.apply([MODEL, DEPLOYMENT, model(7)])
    await until(lambda: "m7" in watcher.current.models)
    assert watcher.held_back is None
    assert watcher.current.version == 1
    assert [e.name for e in watcher.current.endpoints["chat"]] == [ENDPOINT.name]


async def test_carried_endpoints_go_when_nobody_registers_them_again(
    redis_client: Redis, store: RegistryStore, config: RegistryConfig
) -> None:
    await store.apply([MODEL, DEPLOYMENT])
    await store.register_endpoint(ENDPOINT, 60)
    async with Watcher(store, config=config.model_copy(update={"endpoint_ttl_s": 0.5})) as watcher:
        await redis_client.flushall()
        await store.apply([MODEL, DEPLOYMENT])
        await until(lambda: watcher.current.version == 1)
        assert "chat" in watcher.current.endpoints
        await until(lambda: "chat" not in watcher.current.endpoints)


async def test_deleting_everything_is_believed(store: RegistryStore, watcher: Watcher) -> None:
    version = await store.delete("Model", "chat", cascade=True)
    assert await watcher.wait_for(version)
    assert not watcher.current.models
    assert watcher.held_back is None


async def test_an_older_copy_of_the_registry_is_taken_over(
    redis_server: RedisServer, store: RegistryStore, watcher: Watcher
) -> None:
    """Redis comes back from a copy that lacks the last changes, and goes on from there."""
    raw = Redis(port=redis_server.port)
    dumps = {key: await raw.dump(key) for key in await raw.keys()}
    for n in range(3):
        await store.apply([model(n)])
    await converged(watcher, store)
    async with raw.pipeline(transaction=True) as restore:
        restore.flushall()
        for key, dump in dumps.items():
            restore.restore(key, 0, dump or b"")
        await restore.execute()
    await raw.aclose()
    for n in range(10, 15):
        await store.apply([model(n)])
    await converged(watcher, store)
    assert "m0" not in watcher.current.models


async def test_a_trimmed_stream_is_made_up_for_by_reading_everything(
    redis_server: RedisServer, redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    await redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for n in range(10):
        await apply_when_possible(store, n)
    await redis_client.xtrim("eh:{test}:changes", maxlen=1)
    await apply_when_possible(store, 10)
    await converged(watcher, store)


async def test_foreign_records_in_the_stream_do_not_stop_it(
    redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    await redis_client.xadd("eh:{test}:changes", {"something": "else"})
    version = await store.apply([model(1)])
    await until(lambda: watcher.current.version == version)
    assert watcher.resyncs["unreadable"] >= 1


async def test_a_read_only_redis_keeps_serving_reads(
    redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    await redis_client.replicaof("127.0.0.1", "1")
    await redis_client.config_set("replica-serve-stale-data", "yes")
    with pytest.raises(RegistryReadOnlyError):
        await store.apply([model(1)])
    assert watcher.current.model("chat") is not None
    await redis_client.replicaof("NO", "ONE")
    await apply_when_possible(store, 2)
    await converged(watcher, store)


async def test_without_redis_and_cache_the_view_is_empty_and_says_so(
    redis_server: RedisServer, store: RegistryStore, config: RegistryConfig
) -> None:
    redis_server.kill()
    async with Watcher(store, config=config) as watcher:
        assert watcher.current.stale
        assert not watcher.connected
        assert watcher.staleness_s == float("inf")
        redis_server.start()
        await apply_when_possible(store, 1)
        await converged(watcher, store)
        assert not watcher.current.stale


async def test_a_restart_without_redis_serves_from_the_cache_file(
    redis_server: RedisServer, store: RegistryStore, config: RegistryConfig, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "snapshot.json"
    await store.apply([MODEL, DEPLOYMENT])
    await store.register_endpoint(ENDPOINT, 60)
    async with Watcher(store, path, config=config) as watcher:
        before = watcher.current
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    redis_server.kill()
    async with Watcher(store, path, config=config) as watcher:
        assert list(watcher.current.objects()) == list(before.objects())
        assert watcher.current.version == before.version
        assert not watcher.current.stale
        assert not watcher.connected
        assert 0 < watcher.staleness_s < 60
        redis_server.start()
        await until(lambda: watcher.connected)
        assert list(watcher.current.objects()) == list(before.objects())


async def test_a_cached_view_is_kept_when_redis_was_emptied_meanwhile(
    redis_client: Redis, store: RegistryStore, config: RegistryConfig, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot.json"
    await store.apply([MODEL])
    async with Watcher(store, path, config=config):
        pass
    await redis_client.flushall()
    async with Watcher(store, path, config=config) as watcher:
        assert watcher.held_back is not None
        assert "chat" in watcher.current.models


async def test_the_cache_file_follows_changes_while_running(
    store: RegistryStore, config: RegistryConfig, tmp_path: Path
) -> None:
    path = tmp_path / "snapshot.json"
    async with Watcher(store, path, config=config):
        version = await store.apply([MODEL])
        await until(lambda: path.exists() and json.loads(path.read_text())["position"][1] == version)
    assert [p.name for p in tmp_path.iterdir() if "snapshot" in p.name] == ["snapshot.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "position": []}'])
async def test_a_damaged_cache_file_is_ignored(
    store: RegistryStore, config: RegistryConfig, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "snapshot.json"
    path.write_text(content)
    await store.apply([MODEL])
    async with Watcher(store, path, config=config) as watcher:
        assert "chat" in watcher.current.models


async def test_every_failure_in_a_row_ends_in_convergence(
    redis_server: RedisServer, redis_client: Redis, store: RegistryStore, watcher: Watcher
) -> None:
    """Two writers' changes go through kills, pauses and dropped connections; the end is the same for all."""
    writer = asyncio.create_task(_write(store, 60))
    for _ in range(2):
        redis_server.signal(signal.SIGSTOP)
        await until(lambda: not watcher.connected)
        redis_server.signal(signal.SIGCONT)
        await until(lambda: watcher.connected)
        redis_server.kill()
        await until(lambda: not watcher.connected)
        redis_server.start()
        await until(lambda: watcher.connected)
        try:
            await redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        except RedisError:
            pass
    await writer
    await converged(watcher, store)
    assert all(f"m{n}" in watcher.current.models for n in range(60))


async def _write(store: RegistryStore, count: int) -> None:
    for n in range(count):
        await apply_when_possible(store, n)
        await asyncio.sleep(0.01)


async def test_the_connection_settings_bound_every_answer(config: RegistryConfig) -> None:
    client = connect(config.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
        await RegistryStore(client, "test").load()
    await client.aclose()
