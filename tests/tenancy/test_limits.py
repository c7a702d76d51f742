"""Reservations against limits, by workers that share a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.batch_jobs.answer import RowAnswer
from inference.request import Usage
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.slices.config import SlicesConfig
from model_registry.slices.exchange import Exchange
from model_registry.slices.store import SliceStore
from tenancy.errors import BeyondLimitError, RateLimitedError
from tenancy.limits import Reservation, TenantLimits
from tenancy.limits_spec import NO_LIMITS, Limits
from tests.model_registry.conftest import config, redis_client, redis_server, until

__all__ = ["config", "redis_client", "redis_server"]

ALL = Limits(concurrency=4, requests_per_min=50, tokens_per_min=1000)


class Worker:
    def __init__(self, config: RegistryConfig) -> None:
        self._redis = connect(config)
        slices = SlicesConfig(lease_s=1.0, report_s=0.1)
        self.exchange = Exchange(slices, SliceStore.of(self._redis, config), 1)
        self.limits = TenantLimits(self.exchange, 0.3)
        self._task = asyncio.get_running_loop().create_task(self.exchange.run())

    async def reserve(self, tokens: int = 100, limits: Limits = ALL) -> Reservation:
        found = await self.limits.reserve("t", limits, tokens)
        assert found is not None
        return found

    def used(self, kind: str) -> int:
        one = self.exchange._slices[f"tenant:t:{kind}"]
        return one.usage.total(asyncio.get_running_loop().time())

    def uses(self) -> tuple[int, int, int]:
        return self.used("concurrency"), self.used("requests"), self.used("tokens")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._redis.aclose()


@pytest.fixture
async def worker(config: RegistryConfig) -> AsyncIterator[Worker]:
    found = Worker(config)
    await until(lambda: found.exchange.connected)
    yield found
    await found.close()


@pytest.fixture
async def pair(config: RegistryConfig) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers, each of which knows of the other; the first seconds of a new Redis are over."""
    one, other = Worker(config), Worker(config)
    await until(lambda: one.exchange.workers == other.exchange.workers == 2)
    await asyncio.sleep(2.1)
    yield one, other
    await one.close()
    await other.close()


@pytest.mark.parametrize(("tokens", "begun", "left"), [
    (40, True, (0, 1, 40)),
    (100, True, (0, 1, 100)),
    (250, True, (0, 1, 250)),
    (0, False, (0, 0, 0)),
])  # fmt: skip
async def test_a_reservation_is_settled_to_what_the_request_cost(
    worker: Worker, tokens: int, begun: bool, left: tuple[int, int, int]
) -> None:
    reservation = await worker.reserve(100)
    assert worker.uses() == (1, 1, 100)
    reservation.settle(tokens, begun=begun)
    assert worker.uses() == left
    reservation.settle(7)
    assert worker.uses() == left, "once is enough"


async def test_a_tenant_without_limits_is_not_counted(worker: Worker) -> None:
    assert await worker.limits.reserve("t", NO_LIMITS, 10**9) is None


async def test_what_is_refused_takes_nothing(worker: Worker) -> None:
    """Also where another limit had room."""
    await worker.reserve(900)
    with pytest.raises(RateLimitedError, match=r"tokens per minute: limit 1000, used 900") as refused:
        await worker.reserve(200)
    assert 50 <= refused.value.retry_after_s <= 61
    assert worker.uses() == (1, 1, 900)


async def test_what_no_waiting_helps_is_said(worker: Worker) -> None:
    with pytest.raises(BeyondLimitError, match="needs about 1001 tokens; your limit is 1000"):
        await worker.reserve(1001)


async def test_concurrency_is_free_again_at_the_end(worker: Worker) -> None:
    held = [await worker.reserve(1) for _ in range(4)]
    with pytest.raises(RateLimitedError, match="requests at once"):
        await worker.reserve(1)
    held[0].settle(1)
    await worker.reserve(1)


async def test_two_workers_never_have_more_together(pair: tuple[Worker, Worker]) -> None:
    async def try_one(worker: Worker) -> bool:
        try:
            await worker.reserve(1, Limits(requests_per_min=30))
        except RateLimitedError:
            return False
        return True

    taken = 0
    for _ in range(40):
        taken += sum(await asyncio.gather(*map(try_one, pair)))
    assert taken == 30


async def test_what_the_other_worker_does_not_use_is_had_within_the_wait(pair: tuple[Worker, Worker]) -> None:
    """The other one holds a part ahead of use, and gives it back when it hears that somebody is short."""
    one, other = pair
    await one.reserve(10, Limits(tokens_per_min=1000))
    await asyncio.sleep(0.3)
    began_s = asyncio.get_running_loop().time()
    await other.reserve(990, Limits(tokens_per_min=1000))
    assert asyncio.get_running_loop().time() - began_s < 0.06


def test_a_row_of_a_batch_job_waits_for_its_tenants_limit() -> None:
    assert RowAnswer(429, b"{}", "r", "rate_limit_exceeded", Usage()).waits
