"""Records: what becomes of a replica's record by what was seen and what was decided. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable

from controller.replicas.acts import Act, Drain, GiveUp, Seen, Start, Stop, TakeBack
from controller.replicas.errands import Outcome
from controller.replicas.placing import target_of
from model_registry.entities import Deployment
from model_registry.pools import Pool
from model_registry.replicas import Replica, ReplicaState
from model_registry.states import check_replica

FOUND = "it was there already"
"""Reason of a record that was made for something which ran: its start was not seen, nor how long it took."""


def progressed(replica: Replica, outcome: Outcome | None, seen: Seen, now_s: float) -> Replica | None:
    """The record after what happened; None: nothing is left of it."""
    if outcome is not None and outcome.verb == "stop" and replica.state in {"stopping", "failed"}:
        return None
    if replica.state != "starting":
        return replica
    if outcome is not None and outcome.error is not None:
        return moved(replica, "failed", outcome.error, now_s)
    if outcome is not None and outcome.running is not None:
        running = outcome.running
        replica = replica.model_copy(
            update={"server": running.server, "handle": running.handle, "memory_mib": running.memory_mib}
        )
    if replica.server is not None and seen.lost:
        return moved(replica, "failed", "it ended before it was ready", now_s)
    if replica.handle is not None and (replica.server is None or seen.ready):
        took_s = None if replica.reason == FOUND else round(max(0.0, now_s - replica.created), 3)
        return moved(replica, "ready", "", now_s).model_copy(update={"cold_start_s": took_s})
    return replica


def moved(replica: Replica, state: ReplicaState, reason: str, now_s: float) -> Replica:
    """In another state since now."""
    check_replica(replica.name, replica.state, state)
    return replica.model_copy(update={"state": state, "reason": reason, "since": now_s})


def after(acts: Iterable[Act], pool: Pool, taken: Collection[str], now_s: float) -> list[Replica]:
    """The records that acts make or change; `taken`: names that are in use."""
    made: list[Replica] = []
    for act in acts:
        match act:
            case Start(deployment, place, reason):
                in_use = {*taken, *(one.name for one in made)}
                made.append(begun(deployment, pool.name, reason, in_use, now_s, place=place))
            case TakeBack(replica, reason):
                made.append(moved(replica, "ready", reason, now_s))
            case Drain(replica, reason):
                made.append(moved(replica, "draining", reason, now_s))
            case Stop(replica, reason):
                made.append(moved(replica, "stopping", reason, now_s))
            case GiveUp(replica, reason):
                made.append(moved(replica, "failed", reason, now_s))
    return made


def begun(
    deployment: Deployment,
    pool: str,
    reason: str,
    taken: Collection[str],
    now_s: float,
    *,
    place: str | None = None,
    state: ReplicaState = "starting",
) -> Replica:
    """A new record; `taken`: names that are in use."""
    name = f"{deployment.name}.{secrets.token_hex(3)}"
    while name in taken:
        name = f"{deployment.name}.{secrets.token_hex(3)}"
    return Replica(
        name=name,
        deployment=deployment.name,
        model=deployment.model,
        pool=pool,
        place=place,
        target=target_of(deployment),
        state=state,
        since=now_s,
        created=now_s,
        reason=reason,
    )
