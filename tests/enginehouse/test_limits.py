"""Limits of a tenant over several real gateways: exact, shown, settled, and there again after a crash."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.tenants import Tenant
from tests.enginehouse.fleet import COMPLETION_TOKENS, PROMPT_TOKENS, CountingServer, Fleet, fleet
from tests.model_registry.conftest import RedisServer, config, eventually, redis_client, redis_server

__all__ = ["config", "redis_client", "redis_server"]

LEASE_S = 1.5
SETTINGS = {"ENGINEHOUSE_SLICES__LEASE_S": str(LEASE_S), "ENGINEHOUSE_SLICES__REPORT_S": "0.1"}


async def hammer(
    gateways: Fleet, for_s: float, callers: int = 8, enough: Callable[[], bool] = lambda: False
) -> Counter[int]:
    """Ask from many callers at once, each as soon as it has its answer, for so long or until `enough`."""
    until_s = time.monotonic() + for_s
    statuses: Counter[int] = Counter()

    async def one(number: int) -> None:
        while time.monotonic() < until_s and not enough():
            status = await gateways.status(number % len(gateways.ports))
            statuses[status] += 1
            if status != 200:
                await asyncio.sleep(0.1)

    await asyncio.gather(*map(one, range(callers)))
    return statuses


async def test_requests_per_minute_hold_over_all_workers(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    server = CountingServer()
    tenant = Tenant(name="t", requests_per_min=100)
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, tenant, **SETTINGS) as gateways,
    ):
        statuses = await hammer(gateways, 20.0, enough=lambda: len(server.begun_s) >= 95)
        statuses += await hammer(gateways, 2.0)
        assert set(statuses) == {200, 429}
        assert 95 <= statuses[200] <= 100
        assert len(server.begun_s) == statuses[200]
        refused = await gateways.ask()
        body = await refused.json()
        assert body["error"]["code"] == "rate_limit_exceeded"
        headers = refused.headers
        assert headers["x-ratelimit-limit-requests"] == "100"
        assert int(headers["x-ratelimit-remaining-requests"]) <= 5
        first_s = 60.25 - (time.monotonic() - server.begun_s[0])
        assert first_s - 2 <= int(headers["Retry-After"]) <= first_s + 9


async def test_tokens_are_reserved_by_estimate_and_settled_exactly(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    cost = PROMPT_TOKENS + COMPLETION_TOKENS
    tenant = Tenant(name="t", tokens_per_min=1000)
    async with (
        CountingServer().listening() as url,
        fleet(config, redis_client, url, tmp_path, tenant, gateways=1, workers=1, **SETTINGS) as gateways,
    ):
        for _ in range(5):
            assert await gateways.status(max_tokens=100) == 200
        answer = await gateways.ask(max_tokens=5)
        assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
        left = int(answer.headers["x-ratelimit-remaining-tokens"])
        assert 1000 - 6 * cost - 5 <= left <= 1000 - 5 * cost
        assert answer.headers["x-ratelimit-reset-tokens"].startswith(("1m0", "59.", "60"))
        too_large = await gateways.ask(messages=[{"role": "user", "content": "word " * 2000}])
        assert too_large.status == 400
        assert (await too_large.json())["error"]["code"] == "request_beyond_limit"


async def test_concurrency_holds_at_the_engine_and_comes_back_after_a_crash(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    server = CountingServer()
    server.takes_s = 1.0
    tenant = Tenant(name="t", concurrency=8)
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, tenant, **SETTINGS) as gateways,
    ):
        await hammer(gateways, 2 * LEASE_S)
        statuses = await hammer(gateways, 4.0, callers=24)
        assert server.most == 8
        assert statuses[200] >= 0.7 * 8 * 4.0 / server.takes_s
        server.takes_s = 30.0
        held = [asyncio.create_task(until_admitted(gateways)) for _ in range(16)]
        await eventually(lambda: _is(server.in_flight == 8))
        assert await gateways.status(1) == 429
        gateways.kill(0)
        killed_s = time.monotonic()
        assert set(await asyncio.gather(*held)) == {0}
        server.takes_s = slowest_s = 0.0

        async def served() -> bool:
            nonlocal slowest_s
            asked_s = time.monotonic()
            status = await gateways.status(1)
            slowest_s = max(slowest_s, time.monotonic() - asked_s)
            return status == 200

        await eventually(served, every_s=0.02)
        assert time.monotonic() - killed_s <= LEASE_S + 0.5 + slowest_s


async def until_admitted(gateways: Fleet) -> int:
    status = 429
    while status == 429:
        status = await gateways.status(0)
        await asyncio.sleep(0.05)
    return status


async def _is(true: bool) -> bool:
    return true


async def test_without_redis_requests_go_on_and_the_limit_holds(
    config: RegistryConfig, redis_client: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    """For a tenant that all workers know; and once Redis is back, what is left is used."""
    server = CountingServer()
    limit = 400
    tenant = Tenant(name="t", requests_per_min=limit)
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, tenant, **SETTINGS) as gateways,
    ):
        assert await asyncio.gather(*(gateways.status(n % 2) for n in range(100))) == [200] * 100
        redis_server.kill()
        statuses = await hammer(gateways, 3 * LEASE_S)
        assert set(statuses) <= {200, 429}
        assert statuses[200] > 0
        assert len(server.begun_s) <= limit
        await asyncio.to_thread(redis_server.start)
        await hammer(gateways, 6 * LEASE_S, enough=lambda: len(server.begun_s) >= limit)
        assert 0.95 * limit <= len(server.begun_s) <= limit


async def test_without_redis_a_tenant_is_served_by_workers_that_it_was_not_at(
    config: RegistryConfig, redis_client: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Each has its even part for it at once, so that the limit may be exceeded by these, once."""
    server = CountingServer()
    limit = 100
    tenant = Tenant(name="t", requests_per_min=limit)
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, tenant, **SETTINGS) as gateways,
    ):
        assert await gateways.status(0) == 200
        redis_server.kill()
        await asyncio.sleep(0.5)
        assert await asyncio.gather(*(gateways.status(1) for _ in range(20))) == [200] * 20
        await hammer(gateways, 3 * LEASE_S)
        assert len(server.begun_s) <= 1.75 * limit
