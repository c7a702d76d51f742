"""Connections to Redis: how long its answers are waited for, and what its errors mean to us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.exceptions
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from model_registry.config import RegistryConfig
from model_registry.errors import RegistryReadOnlyError, RegistryUnavailableError
from model_registry.redis_address import RedisAddress

RedisClient = Redis | RedisCluster


def connect(config: RegistryConfig) -> RedisClient:
    """A client for `RegistryStore`; it connects on first use.

    To one server, to the primary that Sentinel names (asked again whenever the connection is made anew), or
    to a Cluster, whose keys share one slot and so one node (`model_registry.keys`).

    A lost connection is tried once more: a pooled one may have died unnoticed since its last use. There is
    no `socket_timeout`: with one, redis-py sends through `asyncio.wait_for`, which on Python 3.11 can lose
    the cancellation of a task. `answer` bounds the waiting instead.
    """
    address = RedisAddress.of(config.redis_url)
    options: dict[str, Any] = {
        "decode_responses": True,
        "protocol": 2,
        "socket_connect_timeout": config.connect_timeout_s,
        "socket_timeout": None,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    }
    if config.redis_url.startswith("unix://"):
        del options["socket_keepalive"]  # of TCP; redis-py refuses it for others
    if address.kind == "single":
        return Redis.from_url(config.redis_url, **options)
    login: dict[str, Any] = {"username": address.username, "password": address.password}
    if address.tls:
        login["ssl"] = True
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, **options, **login)
    return _primary(address, options, login)


def _primary(address: RedisAddress, options: dict[str, Any], login: dict[str, Any]) -> Redis:
    """The sentinels themselves are asked without the login, which is the primary's."""
    asking = {key: options[key] for key in ("socket_connect_timeout", "decode_responses", "protocol")}
    asking |= {"socket_timeout": options["socket_connect_timeout"]}
    if address.tls:
        asking["ssl"] = True
    sentinel = Sentinel(list(address.hosts), sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    primary: Redis = sentinel.master_for(address.service, db=address.db, **options, **login)
    return primary


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
    except RuntimeError as error:
        if not str(error).endswith("the handler is closed"):
            raise
        # uvloop's word for a connection that was closed before it was written to; redis-py passes it on
        raise RegistryUnavailableError("Redis closed the connection") from error
