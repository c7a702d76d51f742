"""Whose turn it is to read a server's KV events, on a real Redis."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.errors import RegistryUnavailableError
from model_registry.kv_feed.keys import CATALOGUE
from model_registry.kv_feed.store import KvFeedStore
from tests.model_registry.conftest import RedisServer, eventually

LEASE_S = 5.0
A, B = "http://a:8000", "http://b:8000"


@pytest.fixture
def feed(redis_client: Redis, config: RegistryConfig) -> KvFeedStore:
    return KvFeedStore.of(redis_client, config)


async def test_one_worker_at_a_time_reads_a_server(feed: KvFeedStore) -> None:
    """Of many that ask at once one gets the turn; it keeps it, leaves it, or lets it lapse."""
    turns = await asyncio.gather(*(feed.turn(A, f"w{n}", LEASE_S) for n in range(8)))
    (reader,) = [n for n, turn in enumerate(turns) if turn.reads]
    assert (await feed.turn(A, f"w{reader}", LEASE_S)).reads
    assert (await feed.turn(B, "other", LEASE_S)).reads
    follower = await feed.turn(A, "other", LEASE_S)
    assert not follower.reads
    assert follower.age_s is not None
    assert follower.age_s < 1.0
    await feed.turn(A, f"w{reader}", 0.0)
    assert (await feed.turn(A, "other", 0.05)).reads

    async def lapsed() -> bool:
        return (await feed.turn(A, "next", LEASE_S)).reads

    await eventually(lapsed)


async def test_only_the_reader_is_heard_and_everybody_hears_all(feed: KvFeedStore) -> None:
    await feed.turn(A, "reader", LEASE_S)
    for change in (b"\x00one", b"two"):
        assert (await feed.turn(A, "reader", LEASE_S, change)).reads
    assert not (await feed.turn(A, "other", LEASE_S, b"false")).reads
    await feed.turn(B, "reader", LEASE_S, b"three")
    told = await feed.changes({A: "0", B: "0"})
    assert {server: [*one.changes] for server, one in told.items()} == {
        A: [b"\x00one", b"two"],
        B: [b"three"],
    }
    assert await feed.changes({A: told[A].last}) == {}
    waiting = asyncio.create_task(feed.changes({A: told[A].last, B: told[B].last}, block_s=5.0))
    await feed.turn(A, "reader", LEASE_S, b"four")
    assert [*(await waiting)[A].changes] == [b"four"]


async def test_keys_are_those_of_the_catalogue_and_lapse(feed: KvFeedStore, redis_client: Redis) -> None:
    await feed.turn(A, "reader", LEASE_S, b"one")
    keys = [key async for key in redis_client.scan_iter("eh:{test:kv}:*")]
    suffixes = {key.removeprefix("eh:{test:kv}:").partition(":")[0]: key for key in keys}
    assert suffixes.keys() == {row.suffix.partition(":")[0] for row in CATALOGUE}
    for row in CATALOGUE:
        key = suffixes[row.suffix.partition(":")[0]]
        assert await redis_client.type(key) == row.type
        assert 0 < await redis_client.ttl(key) <= 600


async def test_without_redis_it_says_so(feed: KvFeedStore, redis_server: RedisServer) -> None:
    redis_server.kill()
    with pytest.raises(RegistryUnavailableError):
        await feed.turn(A, "reader", LEASE_S)
