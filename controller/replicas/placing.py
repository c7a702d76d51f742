"""Placing: on which of a pool's servers the next replica comes up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_registry.drains import Drain
from model_registry.entities import Deployment
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica


class Full(Exception):  # noqa: N818 - an outcome, caught by the one who asks
    """The pool has no room; `str` says why."""


def place_for(pool: Pool, deployment: Deployment, replicas: Sequence[Replica]) -> str | None:
    """The server to use; None where each replica has one of its own. Raises Full.

    `replicas`: all of the pool whose record is there, whatever their state: what is being taken away still
    takes its room. A Triton holds a model once; of those that lack it, the one with fewest replicas is used.
    """
    if pool.max_replicas is not None and len(replicas) >= pool.max_replicas:
        raise Full(f"pool {pool.name!r} has its max_replicas ({pool.max_replicas})")
    if not isinstance(pool.actuator, TritonActuator):
        return None
    target, triton = target_of(deployment), pool.actuator
    lacking = [
        server
        for server in triton.servers
        if not any(one.place == server.http and (one.target or one.model) == target for one in replicas)
    ]
    if not triton.servers:
        raise Full(f"every server of pool {pool.name!r} is drained")
    if not lacking:
        raise Full(f"every server of pool {pool.name!r} has {target!r}")
    return min(lacking, key=lambda server: _load(triton, server, replicas)).http


def stand_in(deployment: Deployment, pool: Pool, place: str | None, number: int) -> Replica:
    """What a replica that is to be started takes of its pool, for those that are placed after it."""
    return Replica(
        name=f"{number}",
        deployment=deployment.name,
        model=deployment.model,
        pool=pool.name,
        place=place,
        target=target_of(deployment),
    )


def undrained(pool: Pool, drains: Iterable[Drain]) -> Pool:
    """The pool with the servers on which something may be placed: those that no operator drains."""
    urls = {drain.server.rstrip("/") for drain in drains if drain.server is not None}
    actuator = pool.actuator
    if not urls or not isinstance(actuator, TritonActuator):
        return pool
    servers = tuple(one for one in actuator.servers if one.http.rstrip("/") not in urls)
    return pool.model_copy(update={"actuator": actuator.model_copy(update={"servers": servers})})


def is_removed(replica: Replica, pool: Pool | None) -> bool:
    """Whether its server was taken out of its pool."""
    if pool is None or replica.place is None or not isinstance(pool.actuator, TritonActuator):
        return False
    return all(one.http != replica.place for one in pool.actuator.servers)


def home_of(deployment: Deployment) -> str | None:
    """The pool in which its replicas should be."""
    return None if deployment.scaling is None else deployment.scaling.pool


def target_of(deployment: Deployment) -> str:
    """What a replica of it is called on its server."""
    return deployment.target or deployment.model


def _load(actuator: TritonActuator, server: PoolServer, replicas: Sequence[Replica]) -> tuple[int, int, int]:
    """Replicas on it, those coming up on its GPU, and its place in the list."""
    gpu = {server.http} | {one.http for one in actuator.servers if server.gpu and one.gpu == server.gpu}
    there = sum(one.place == server.http for one in replicas)
    coming = sum(one.place in gpu and one.state == "starting" for one in replicas)
    return there, coming, actuator.servers.index(server)
