"""Connections to Redis, and what its errors mean to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from model_registry.config import RegistryConfig
from model_registry.errors import RegistryReadOnlyError, RegistryUnavailableError


def connect(config: RegistryConfig) -> Redis:
    """A client that answers or fails within `connect_timeout_s` + `command_timeout_s`; connects on first use.

    A lost connection is tried once more: a pooled one may have died unnoticed since its last use. A timeout
    is not, so that a paused Redis costs one timeout and not several.
    """
    return Redis.from_url(
        config.redis_url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=config.connect_timeout_s,
        socket_timeout=config.command_timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn errors of Redis and of the way to it into ours."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RegistryUnavailableError(f"Redis cannot be reached: {error}") from error
    except redis.exceptions.RedisError as error:
        if isinstance(error, redis.exceptions.ReadOnlyError) or "READONLY" in str(error):
            raise RegistryReadOnlyError("Redis is read-only (a replica, or a failover under way)") from error
        raise RegistryUnavailableError(f"Redis refuses: {error}") from error
