"""Builds as a controller counts them, in a real Redis."""

from __future__ import annotations

from redis.asyncio import Redis

from controller.metrics.builds import BuildCounts, BuildsSeen
from model_registry.build_jobs.entities import Able, AskedBuild
from model_registry.build_jobs.store import BuildStore
from model_registry.config import RegistryConfig
from tests.controller.conftest import RedisServer, config, redis_client, redis_server
from tests.model_registry.conftest import eventually
from tests.model_registry.patience import patient_config

__all__ = ["config", "patient_config", "redis_client", "redis_server"]

ABLE = Able(("emulated",))


def asked(digest: str) -> AskedBuild:
    return AskedBuild(engine=digest, digest=digest, spec={}, runtime="emulated", store_url="/engines")


async def test_builds_count_until_they_end(redis_client: Redis, config: RegistryConfig) -> None:
    """Those that wait and those under way; builders as long as they say that they are there."""
    builds = BuildStore.of(redis_client, config)
    seen = BuildsSeen(builds)
    assert seen.counts is None
    await seen.look()
    assert seen.counts == BuildCounts(0, 0, 0)
    for digest in ("a", "b"):
        await builds.ask(asked(digest))
    await builds.present("w", ABLE)
    claim = await eventually(lambda: builds.claim("w", ABLE, 30.0))
    await seen.look()
    assert seen.counts == BuildCounts(queued=1, running=1, builders=1)
    assert claim is not None
    await builds.finish(claim, "succeeded")
    await seen.look()
    assert seen.counts == BuildCounts(queued=1, running=0, builders=1)


async def test_without_redis_nothing_is_known_of_builds(
    redis_client: Redis, redis_server: RedisServer, config: RegistryConfig
) -> None:
    seen = BuildsSeen(BuildStore.of(redis_client, config))
    await seen.look()
    redis_server.kill()
    await seen.look()
    assert seen.counts is None
