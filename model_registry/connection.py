"""Connections to Redis: how long its answers are waited for, and what its errors mean to us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from model_registry.config import RegistryConfig
from model_registry.errors import RegistryReadOnlyError, RegistryUnavailableError


def connect(config: RegistryConfig) -> Redis:
    """A client for `RegistryStore`; it connects on first use.

    A lost connection is tried once more: a pooled one may have died unnoticed since its last use. There is
    no `socket_timeout`: with one, redis-py sends through `asyncio.wait_for`, which on Python 3.11 can lose
    the cancellation of a task. `answer` bounds the waiting instead.
    """
    return Redis.from_url(
        config.redis_url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=config.connect_timeout_s,
        socket_timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    )


@asynccontextmanager
async def answer(within_s: float) -> AsyncIterator[None]:
    """Wait no longer for Redis than `within_s`; turn its errors, and those of the way to it, into ours."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise RegistryUnavailableError(f"Redis did not answer within {within_s:g} s") from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RegistryUnavailableError(f"Redis cannot be reached: {error}") from error
    except redis.exceptions.RedisError as error:
        if isinstance(error, redis.exceptions.ReadOnlyError) or "READONLY" in str(error):
            raise RegistryReadOnlyError("Redis is read-only (a replica, or a failover under way)") from error
        raise RegistryUnavailableError(f"Redis refuses: {error}") from error
