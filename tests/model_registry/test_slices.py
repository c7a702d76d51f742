"""Slices over a real Redis: whatever happens, no more is granted than there is, and little lies idle."""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.slices.config import SlicesConfig
from model_registry.slices.exchange import Exchange
from model_registry.slices.keys import CATALOGUE
from model_registry.slices.slice import Slice
from model_registry.slices.split import Share
from model_registry.slices.store import Report, SliceStore
from tests.model_registry.conftest import RedisServer, config, redis_client, redis_server, until

__all__ = ["config", "redis_client", "redis_server"]

LEASE_S = 0.6
SHORT = SlicesConfig(lease_s=LEASE_S, report_s=0.05, top_up_wait_s=0.05)
TOTAL = 37


class Worker:
    """One worker's exchange, and a slice of slots that it takes and gives back."""

    def __init__(
        self, config: RegistryConfig, workers: int, window_s: float = 0.0, total: int = TOTAL
    ) -> None:
        self._redis = connect(config)
        self.exchange = Exchange(SHORT, SliceStore.of(self._redis, config), workers)
        self.slice: Slice = self.exchange.open("r", total, window_s=window_s, standing=True)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self.exchange.run())
        self.taken = 0

    @property
    def now_s(self) -> float:
        return self._loop.time()

    @property
    def allowed(self) -> int:
        return self.slice.allowed(self.now_s)

    def is_connected(self) -> bool:
        return self.exchange.connected

    @property
    def used(self) -> int:
        return self.slice.usage.total(self.now_s)

    def take(self) -> bool:
        if self.slice.room(self.now_s) < 1:
            return False
        self.slice.take(1, self.now_s)
        self.taken += 1
        return True

    def back(self) -> None:
        self.slice.give_back(1, self.now_s, self.now_s)

    async def kill(self) -> None:
        """As by kill -9: nothing is said any more."""
        await self._redis.connection_pool.disconnect()
        self.exchange._leave = _nothing  # type: ignore[method-assign]
        await self.close()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._redis.aclose()


async def _nothing() -> None:
    """Says no goodbye."""


@asynccontextmanager
async def workers(
    config: RegistryConfig, count: int, window_s: float = 0.0, total: int = TOTAL
) -> AsyncIterator[list[Worker]]:
    found = [Worker(config, count, window_s, total) for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            await one.close()


def granted(found: list[Worker]) -> int:
    return sum(one.allowed for one in found)


async def settled(found: list[Worker]) -> None:
    """Redis grants anew, and every worker has heard of all the others."""
    await until(
        lambda: all(
            one.exchange.connected
            and one.exchange.workers == len(found)
            and len(one.slice.others) == len(found) - 1
            for one in found
        )
    )
    await asyncio.sleep(2 * LEASE_S + 0.2)


async def test_a_busy_worker_gets_what_the_idle_ones_do_not_use(config: RegistryConfig) -> None:
    async with workers(config, 4) as found:
        await settled(found)
        busy = found[0]
        busy.slice.waiting = TOTAL
        busy.exchange.want_now(busy.slice)
        await until(lambda: busy.allowed == TOTAL, 2.0)
        assert granted(found) == TOTAL


async def test_busy_workers_share_by_weight(config: RegistryConfig) -> None:
    async with workers(config, 4, total=50) as found:
        await settled(found)
        found[0].slice.weight = 2.0
        for one in found:
            one.slice.waiting = TOTAL
        await until(lambda: sorted(one.allowed for one in found) == [10, 10, 10, 20], 2.0)


async def test_what_a_killed_worker_held_is_there_for_the_others_within_one_lease(
    config: RegistryConfig,
) -> None:
    async with workers(config, 3) as found:
        await settled(found)
        victim, *others = found
        victim.slice.waiting = TOTAL
        await until(lambda: victim.allowed == TOTAL, 2.0)
        while victim.take():
            pass
        await victim.kill()
        killed_s = victim.now_s
        for one in others:
            one.slice.waiting = TOTAL
        await until(lambda: sum(one.allowed for one in others) == TOTAL, 4 * LEASE_S)
        took_s = victim.now_s - killed_s
        assert 0.5 * LEASE_S < took_s <= LEASE_S + 2 * SHORT.report_s + 0.2


@pytest.mark.parametrize("seed", range(2))
async def test_never_more_is_granted_than_there_is(
    config: RegistryConfig, redis_server: RedisServer, seed: int
) -> None:
    """Random load, kills, newcomers, a Redis that stops, hangs and comes back."""
    chance = random.Random(seed)
    async with workers(config, 6) as found:
        most = granted_most = 0
        await until(lambda: all(one.is_connected() for one in found))
        started_s = found[0].now_s
        events: list[tuple[float, Callable[[], None]]] = [
            (1.5, lambda: redis_server.signal(signal.SIGSTOP)),
            (2.0, lambda: redis_server.signal(signal.SIGCONT)),
            (3.0, redis_server.kill),
            (4.8, lambda: redis_server.start(keep_data=seed != 1)),
        ]
        killed = False
        while (elapsed_s := found[0].now_s - started_s) < 7.5:
            if events and elapsed_s >= events[0][0]:
                event = events.pop(0)[1]
                if event == redis_server.kill:
                    event()
                else:
                    await asyncio.to_thread(event)
            if not killed and elapsed_s > 2.5:
                killed = True
                await found.pop().kill()
                found.append(Worker(config, 6))
                await until(found[-1].is_connected)  # what nobody has told anything takes a part rounded up
            for one in found:
                if chance.random() < 0.1:
                    one.slice.waiting = chance.choice([0, 0, 3, TOTAL])
                for _ in range(chance.randrange(4)):
                    if one.used and chance.random() < 0.6:
                        one.back()
                    elif one.slice.waiting:
                        one.take()
            granted_most = max(granted_most, granted(found))
            most = max(most, sum(one.used for one in found))
            assert granted(found) <= TOTAL, (
                elapsed_s,
                [(one.slice.terms.held, one.allowed) for one in found],
            )
            await asyncio.sleep(0.003)
        assert granted_most >= 0.95 * TOTAL
        for one in found:
            while one.used:
                one.back()


async def test_without_redis_slices_go_on_then_shrink_to_even_parts(
    config: RegistryConfig, redis_server: RedisServer
) -> None:
    async with workers(config, 4) as found:
        await settled(found)
        busy = found[0]
        busy.slice.waiting = TOTAL
        await until(lambda: busy.allowed == TOTAL, 2.0)
        redis_server.kill()
        assert busy.allowed == TOTAL, "the last slice goes on"
        await until(lambda: busy.allowed < TOTAL, LEASE_S + 0.2)
        assert granted(found) <= TOTAL
        await until(lambda: granted(found) == TOTAL, 3 * LEASE_S)
        assert sorted(one.allowed for one in found) == [9, 9, 9, 10]
        await asyncio.to_thread(redis_server.start)
        await until(lambda: busy.allowed == TOTAL, 10 * LEASE_S)
        assert granted(found) == TOTAL


async def test_a_worker_that_never_heard_redis_uses_its_even_part_one_lease_later(
    config: RegistryConfig, redis_server: RedisServer
) -> None:
    redis_server.kill()
    async with workers(config, 2, total=10) as found:
        assert granted(found) == 0
        await until(lambda: granted(found) > 0, 2 * LEASE_S)
        assert granted(found) <= 10


async def test_what_a_report_that_comes_late_says_does_not_count(
    redis_client: Redis, config: RegistryConfig
) -> None:
    store = SliceStore.of(redis_client, config)

    async def say(worker: str, number: int, keep: int, ask: int) -> int:
        report = Report("r", 10, 0.0, keep, ask, 10, Share(keep, keep + ask), urgent=False)
        return (await store.report(worker, number, 5.0, "", [report], 1.0)).grants[0].held

    assert await say("a", 2, 0, 8) == 8
    await say("a", 1, 0, 1)
    assert await say("b", 1, 0, 10) == 2


async def test_a_rate_is_exact_in_every_window(config: RegistryConfig) -> None:
    """Four workers, one limit: in no window more than it, and nearly all of it used."""
    window_s, total = 2.0, 40
    times: list[float] = []
    still_s = 0.0

    async def take(units: int, busy: list[Worker], idle: list[Worker]) -> None:
        """All that are busy take what they can, until they have taken so many more."""
        nonlocal still_s
        enough = len(times) + units
        async with asyncio.timeout(60):
            while len(times) < enough:
                for one in idle:
                    one.slice.waiting = 0
                for one in busy:
                    one.slice.waiting = 5
                    if one.take():
                        times.append(one.now_s)
                began_s = busy[0].now_s
                await asyncio.sleep(0.01)
                still_s = max(still_s, busy[0].now_s - began_s)

    async with workers(config, 4, window_s, total) as found:
        await take(5 * total // 2, found, [])
        by_all = len(times)
        await take(3 * total // 2, found[:2], found[2:])
    spans_s = [later_s - first_s for first_s, later_s in zip(times, times[total:], strict=False)]
    assert min(spans_s) >= window_s
    # Units return by cells of an eighth of the window; where two of four keep their parts, half is used, and
    # as many take two windows. What is due while the machine stands still comes after that.
    at_most_s = 1.4 * window_s + 4 * still_s
    assert statistics.median(spans_s[: by_all - total]) <= at_most_s
    assert spans_s[-1] <= at_most_s


async def test_every_key_is_in_the_catalogue_and_what_is_unused_goes(
    config: RegistryConfig, redis_client: Redis
) -> None:
    async with workers(config, 2) as found:
        await until(lambda: all(one.exchange.connected and one.slice.heard for one in found))
        await SliceStore.of(redis_client, config).report("w", 1, 1.0, "hello", [], 1.0)
        keys = {str(key).removeprefix("eh:{test:slices}:") for key in await redis_client.keys("*")}
        rows = {row.suffix.partition(":")[0] for row in CATALOGUE}
        assert {key.partition(":")[0] for key in keys} == rows
        assert 0 < await redis_client.pttl("eh:{test:slices}:of:r") <= 2 * LEASE_S * 1000
    assert await redis_client.hlen("eh:{test:slices}:of:r") == 0, "who leaves gives back"
