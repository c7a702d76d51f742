"""Adoption: records for what runs without one, as after a loss of the registry. Pure.

What a deployment of the pool may have as its replica is taken over and serves on; the numbers decide later
whether it stays. What has our mark and can be nobody's is taken away in the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from pydantic import ValidationError

from controller.actuators.port import Found
from controller.replicas.placing import target_of
from controller.replicas.records import FOUND, begun
from model_registry.entities import Deployment
from model_registry.pools import Pool
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot

ORPHAN = "no record named it"


class Nameless(NamedTuple):
    """Something that an actuator finds and no record names."""

    pool: str
    found: Found
    for_s: float = 0.0
    """How long that has been so."""
    was_known: bool = False
    """This leader has had a record of it."""


def adopted(
    nameless: Iterable[Nameless],
    snapshot: Snapshot,
    deployments: Mapping[str, Deployment],
    new: Collection[str],
    orphan_s: float,
    now_s: float,
) -> dict[str, Replica]:
    """Records by name. `deployments`: those that scale; `new`: those of which the registry knew nothing yet.

    A model on a Triton carries no mark. It is the replica of a `new` deployment that calls it so, for then
    the registry may have been lost; otherwise only if there was a record of it: somebody has deleted that, or
    a leader that was frozen right before its act has loaded it late.
    """
    taken = {one.name for one in chain(*snapshot.replicas.values())}
    made: dict[str, Replica] = {}
    for one in sorted(nameless, key=lambda one: (one.pool, one.found.handle, one.found.replica)):
        pool, found = snapshot.pools.get(one.pool), one.found
        if pool is None or found.replica in taken:
            continue
        with suppress(ValidationError):  # no replica was ever called so: it is not ours, whatever its mark
            if found.replica:
                record = _marked(one, pool, deployments, orphan_s, now_s)
            else:
                mine = [
                    deployment
                    for deployment in _may_own(found, pool, snapshot, deployments)
                    if deployment.name in new or (one.was_known and one.for_s >= orphan_s)
                ]
                record = _unmarked(found, pool, mine, made, {*taken, *made}, now_s)
            if record is not None:
                made[record.name] = record
    return made


def _marked(
    one: Nameless, pool: Pool, deployments: Mapping[str, Deployment], orphan_s: float, now_s: float
) -> Replica | None:
    """By its name, which begins with its deployment's."""
    name = one.found.replica.rpartition(".")[0] or one.found.replica
    deployment = deployments.get(name)
    if deployment is not None and deployment.scaling is not None and deployment.scaling.pool == pool.name:
        record = begun(deployment, pool.name, FOUND, (), now_s)
        return Replica.model_validate({**record.model_dump(), "name": one.found.replica})
    if one.for_s < orphan_s:
        return None
    return Replica(
        name=one.found.replica,
        deployment=name,
        model=name if deployment is None else deployment.model,
        pool=pool.name,
        state="stopping",
        handle=one.found.handle,
        since=now_s,
        created=now_s,
        reason=ORPHAN,
    )


def _may_own(
    found: Found, pool: Pool, snapshot: Snapshot, deployments: Mapping[str, Deployment]
) -> list[Deployment]:
    """Those of the pool that call it so; none where it is what a deployment with `servers` has there."""
    fixed = (
        target_of(one) == found.target
        and any(server.http.rstrip("/") == (found.place or "").rstrip("/") for server in one.servers)
        for one in chain(*snapshot.deployments.values())
    )
    if any(fixed):
        return []
    at_home = (one for one in deployments.values() if one.scaling and one.scaling.pool == pool.name)
    return [one for one in at_home if target_of(one) == found.target]


def _unmarked(
    found: Found,
    pool: Pool,
    mine: Iterable[Deployment],
    made: Mapping[str, Replica],
    taken: Collection[str],
    now_s: float,
) -> Replica | None:
    """Of several deployments, the one that has got the fewest."""

    def has(deployment: Deployment) -> tuple[int, str]:
        return sum(one.deployment == deployment.name for one in made.values()), deployment.name

    deployment = min(mine, key=has, default=None)
    return (
        None if deployment is None else begun(deployment, pool.name, FOUND, taken, now_s, place=found.place)
    )
