"""An endpoint's slots over several real gateways, counted at the model server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.tenants import Tenant
from tests.enginehouse.fleet import CountingServer, Fleet, fleet
from tests.model_registry.conftest import RedisServer, config, redis_client, redis_server, until

__all__ = ["config", "redis_client", "redis_server"]

SLOTS = 16
TAKES_S = 1.0
"""Long beside what a busy machine takes to send the next request to a slot that has come free."""
LEASE_S = 1.5
SETTINGS = {"ENGINEHOUSE_SLICES__LEASE_S": str(LEASE_S), "ENGINEHOUSE_SLICES__REPORT_S": "0.1"}
TENANT = Tenant(name="t")
PATIENCE_S = 20.0
BUSY = 0.8
"""Share of the slots in use: a slice that is lost would show. `make live-router` measures how much it is."""


class Load:
    """Callers that ask again as soon as they are answered, each always the same gateway."""

    def __init__(self, gateways: Fleet, callers: dict[int, int]) -> None:
        self.statuses: Counter[int] = Counter()
        self._gateways = gateways
        self._tasks = [
            asyncio.create_task(self._call(gateway))
            for gateway, count in callers.items()
            for _ in range(count)
        ]

    async def _call(self, gateway: int) -> None:
        while True:
            status = await self._gateways.status(gateway)
            self.statuses[status] += 1
            if status != 200:
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def filled(server: CountingServer) -> None:
    """Until every slot is in use."""
    await until(lambda: server.in_flight == SLOTS, PATIENCE_S)


async def emptied(server: CountingServer) -> None:
    """Until none is: those who left have been noticed."""
    await until(lambda: server.in_flight == 0, PATIENCE_S)


async def used(server: CountingServer, for_s: float) -> float:
    """Share of the slots in use over a time."""
    began_s, busy, looks = time.monotonic(), 0, 0
    while time.monotonic() - began_s < for_s:
        busy += server.in_flight
        looks += 1
        await asyncio.sleep(0.005)
    return busy / looks / SLOTS


async def test_slots_are_never_exceeded_and_seldom_idle_at_saturation(
    config: RegistryConfig, redis_client: Redis, tmp_path: Path
) -> None:
    """All gateways busy, then only one of them, then one that is killed."""
    server = CountingServer()
    server.takes_s = TAKES_S
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, TENANT, slots=SLOTS, **SETTINGS) as gateways,
    ):
        both = Load(gateways, {0: 24, 1: 24})
        await filled(server)
        all_busy = await used(server, 2.0)
        await both.stop()
        await emptied(server)
        one = Load(gateways, {0: 32})
        await filled(server)
        one_busy = await used(server, 2.0)
        gateways.kill(0)
        await one.stop()
        await emptied(server)
        other = Load(gateways, {1: 32})
        await filled(server)
        after_crash = await used(server, 2.0)
        await other.stop()
        assert server.most == SLOTS
        assert set(both.statuses) == set(other.statuses) == {200}
        assert min(all_busy, one_busy, after_crash) >= BUSY


async def test_without_redis_every_gateway_keeps_to_its_part(
    config: RegistryConfig, redis_client: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    server = CountingServer()
    server.takes_s = TAKES_S
    async with (
        server.listening() as url,
        fleet(config, redis_client, url, tmp_path, TENANT, slots=SLOTS, **SETTINGS) as gateways,
    ):
        load = Load(gateways, {0: 24, 1: 24})
        await filled(server)
        redis_server.kill()
        await asyncio.sleep(2 * LEASE_S)
        away = await used(server, 2.0)
        await asyncio.to_thread(redis_server.start)
        await asyncio.sleep(3 * LEASE_S)
        back = await used(server, 2.0)
        await load.stop()
        assert server.most <= SLOTS
        assert set(load.statuses) == {200}
        assert min(away, back) >= BUSY
