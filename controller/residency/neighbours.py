"""Neighbours: what others have on a server that its pool is about to restart. Pure.

A deployment with `servers` may name a Triton of a pool. Before the pool's `recycle` such endpoints are
drained as for an operator's restart, by drains that the leader writes, and come back afterwards; what is
served nowhere else keeps the server from being restarted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from controller.desired import endpoint_name
from model_registry.demand.demand import Demand
from model_registry.drains import Drain, name_of
from model_registry.entities import Endpoint
from model_registry.pool_conflicts import same_server
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot

RESTARTS = "its pool restarts the server"
PREFIX = "restart-"


def neighbours(http: str, pool: str, snapshot: Snapshot) -> list[Endpoint]:
    """Endpoints on the server at `http` that are not replicas of its pool."""
    own = {
        endpoint_name(one.deployment, one.server)
        for one in chain(*snapshot.replicas.values())
        if one.pool == pool and one.server is not None
    }
    there = (one for one in chain(*snapshot.endpoints.values()) if same_server(one.http) == same_server(http))
    return [one for one in there if one.name not in own]


def is_awaited(http: str, snapshot: Snapshot) -> bool:
    """Whether a deployment names the server and has not been looked at there yet."""
    names = {one.name for one in chain(*snapshot.endpoints.values())}
    return any(
        same_server(server.http) == same_server(http) and endpoint_name(one.name, server) not in names
        for one in chain(*snapshot.deployments.values())
        for server in one.servers
    )


def needed_for(http: str, those: Iterable[Endpoint], snapshot: Snapshot) -> str | None:
    """A model that one of `those` serves and nobody on another server than `http`; None: there is none."""
    for one in those:
        others = snapshot.endpoints.get(one.model, ())
        elsewhere = any(
            other.state == "ready" and other.weight > 0 and same_server(other.http) != same_server(http)
            for other in others
        )
        if one.state in {"starting", "ready"} and one.weight > 0 and not elsewhere:
            return one.model
    return None


def drains(leaking: Mapping[str, str], replicas: Iterable[Replica], snapshot: Snapshot) -> dict[str, Drain]:
    """By name, those that should be there. `leaking`: servers to be restarted, with their pool.

    Those of the pool's own replicas go first: until then others may serve on.
    """
    used = {one.place for one in replicas}
    made = (
        Drain(name=f"{PREFIX}{name_of(one.name)}"[:128], endpoint=one.name, reason=RESTARTS)
        for http, pool in leaking.items()
        if http not in used
        for one in neighbours(http, pool, snapshot)
    )
    return {one.name: one for one in made}


def ours(snapshot: Snapshot) -> Iterator[Drain]:
    """Drains that a leader has written."""
    return (one for one in snapshot.drains.values() if one.reason == RESTARTS and one.name.startswith(PREFIX))


def are_idle(those: Iterable[Endpoint], demand: Demand, out_at_s: float, settle_s: float) -> bool:
    """Whether every gateway has told that nothing is in flight there, since they were out at `out_at_s`.

    On the clock of the demand.
    """
    told = demand.age_s is not None and demand.at_s - demand.age_s >= out_at_s + settle_s
    busy = any(one.name in demand.endpoints and demand.endpoints[one.name].requests for one in those)
    return told and not demand.silent and not busy
