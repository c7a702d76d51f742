"""Roster: replicas that somebody else places (Kubernetes), held against their records. Pure.

Their records are made like all others, `starting` and without a handle; each is given to one of the pods that
appear. A record of one that was ready ends with its pod.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple

from controller.actuators.port import Member
from controller.replicas.acts import Seen
from controller.replicas.config import ReplicasConfig
from controller.replicas.records import FOUND, begun, moved
from controller.scaling.wanted import Wanted
from model_registry.entities import Deployment
from model_registry.pools import KubernetesActuator, Pool
from model_registry.replicas import Replica, ReplicaState

TAKEN_DOWN = "whoever places it is taking it down"
GIVE_BACK_S = 60.0
"""How long after its draining one that should have gone may stay, until it counts again. Where there are no
more pods than should stay it does at once: another one was taken in its place."""
SOON_S = 2.0
"""What is ready so soon after it was asked for was there before; its cold start was not seen."""
UP = frozenset({"starting", "ready", "draining"})
LEAVING = frozenset({"stopping", "failed"})


class Entry(NamedTuple):
    """What is seen of one deployment's workload."""

    members: Sequence[Member]
    order: tuple[str, ...] | None
    """Handles in the order in which they go; None: it can be chosen."""


Roster = Mapping[str, Entry]
"""By deployment; those of which nothing certain is known are left out, and stay as they are."""


class Sighting(NamedTuple):
    """What one look has seen of all workloads."""

    roster: Roster
    problems: Mapping[str, str]
    """By deployment: why its number is not set, or nothing is known of it."""


NOTHING_SEEN = Sighting(MappingProxyType({}), MappingProxyType({}))


def is_placed_elsewhere(pool: Pool | None) -> bool:
    """Whether only the number of its replicas can be set."""
    return pool is not None and isinstance(pool.actuator, KubernetesActuator)


def enrolled(
    records: Iterable[Replica],
    roster: Roster,
    pools: Mapping[str, Pool],
    deployments: Mapping[str, Deployment],
    moving: Collection[str],
    config: ReplicasConfig,
    now_s: float,
) -> dict[str, Replica]:
    """All records by name, those of workloads in line with what is seen. `deployments`: if scaled.

    Of a deployment that is not in the pool any more the records are let go, and the workload keeps the
    number that it has; but not while it is `moving`: while it has less than it wants in its new pool.
    """
    present: dict[str, Replica] = {}
    own: dict[str, list[Replica]] = {name: [] for name in roster}
    for one in records:
        deployment = deployments.get(one.deployment)
        at_home = deployment is not None and deployment.scaling and deployment.scaling.pool == one.pool
        if at_home and is_placed_elsewhere(pools.get(one.pool)):
            own.setdefault(one.deployment, []).append(one)
        elif not is_placed_elsewhere(pools.get(one.pool)) or one.deployment in moving:
            present[one.name] = one
    for name, replicas in own.items():
        entry, deployment = roster.get(name), deployments.get(name)
        if entry is None or deployment is None:
            present |= {one.name: one for one in replicas}
        else:
            kept = {one.name: one for one in _kept(replicas, entry, deployment, config, now_s)}
            present |= kept
            present |= {one.name: one for one in _joined(kept, entry, deployment, now_s)}
    return present


def _kept(
    replicas: Sequence[Replica], entry: Entry, deployment: Deployment, config: ReplicasConfig, now_s: float
) -> Iterator[Replica]:
    """Those that still stand for something, and one in place of each that goes though it was not told to.

    The number counts records: it must not fall because a pod is evicted, which will be made anew.
    """
    members = {member.handle: member for member in entry.members}
    live = {member.handle for member in entry.members if not member.terminating}
    staying = sum(one.state in UP and (one.state != "draining" or one.handle in live) for one in replicas)
    taken_in_place = len(live) <= staying
    patience_s = 0.0 if taken_in_place else config.drain_s + GIVE_BACK_S
    names = {one.name for one in replicas}
    for one in replicas:
        member = None if one.handle is None else members.get(one.handle)
        if one.handle is None:
            if one.state not in LEAVING:
                yield one
        elif member is None or member.terminating:
            if one.state == "starting":
                yield one.model_copy(update={"handle": None, "server": None})
            elif one.state == "ready":
                yield begun(deployment, one.pool, f"in place of {one.name}", names, now_s)
            if member is not None and one.state != "starting":
                yield moved(one, "draining", TAKEN_DOWN, now_s) if one.state == "ready" else one
        elif one.state not in LEAVING or now_s - one.since < patience_s:
            yield one


def _joined(
    kept: Mapping[str, Replica], entry: Entry, deployment: Deployment, now_s: float
) -> Iterator[Replica]:
    """Records for the members that have none: those that wait for one, the oldest at the front.

    Where there is no record at all, what is there is taken over. Else a pod that nobody waits for is left
    alone: it is one more for a while, as in a rolling update, and will be waited for once another one goes.
    """
    assert deployment.scaling is not None
    known, made = {one.handle for one in kept.values()}, set[str]()
    waiting = sorted((one for one in kept.values() if one.handle is None), key=lambda one: one.created)
    nameless = [one for one in entry.members if one.handle not in known and not one.terminating]
    nameless.sort(key=lambda member: not member.ready)
    for member in nameless:
        where = {"handle": member.handle, "server": member.server}
        if waiting:
            record = waiting.pop(0).model_copy(update=where)
            before = member.ready and record.state == "starting" and now_s - record.created < SOON_S
            yield moved(record, "ready", FOUND, now_s) if before else record
        elif not kept:
            state: ReplicaState = "ready" if member.ready else "starting"
            record = begun(deployment, deployment.scaling.pool, FOUND, made, now_s, state=state)
            made.add(record.name)
            yield record.model_copy(update=where)


def foreseen(
    wanted: Mapping[str, Wanted], before: Iterable[Replica], now: Iterable[Replica]
) -> dict[str, Wanted]:
    """`wanted`, without what was decided before it was known that there are replicas at all."""
    known = {one.deployment for one in before}
    taken_over = {one.deployment for one in now} - known
    return {name: said for name, said in wanted.items() if name not in taken_over}


def in_order(
    wanted: Mapping[str, Wanted], roster: Roster, records: Iterable[Replica]
) -> Mapping[str, Wanted]:
    """`wanted`, with those at the front of `leaving` that go whatever is wished."""
    changed = dict(wanted)
    for name, entry in roster.items():
        said = wanted.get(name)
        if said is None or entry.order is None:
            continue
        own = [one for one in records if one.deployment == name and one.state in UP]
        own = [one for one in own if one.handle is None or one.handle in entry.order]
        by_handle = {one.handle: one.name for one in own if one.handle is not None}
        coming = sorted((one for one in own if one.handle is None), key=lambda one: -one.created)
        order = [one.name for one in coming]
        order += [by_handle[handle] for handle in entry.order if handle in by_handle]
        changed[name] = said._replace(leaving=tuple(order[: max(len(own) - said.replicas, 0)]))
    return changed


def patient(seen: Mapping[str, Seen], roster: Roster, records: Iterable[Replica]) -> Mapping[str, Seen]:
    """`seen`, without how long those are not ready that could not be replaced: others would go first."""
    fixed = {name for name, entry in roster.items() if entry.order is not None}
    waited_for = {one.name for one in records if one.deployment in fixed and one.state == "ready"}
    return {name: replace(one, out_s=0.0) if name in waited_for else one for name, one in seen.items()}


class Number(NamedTuple):
    """What a workload is to be set to."""

    replicas: int
    leaving: tuple[str, ...]
    """Handles of those that should go."""


def number_of(replicas: Iterable[Replica], entry: Entry) -> Number:
    """By the records of one deployment. Where the order is fixed, nobody goes before those in front of it."""
    replicas = list(replicas)
    staying = sum(one.state in UP for one in replicas)
    going = [member.handle for member in entry.members if member.terminating]
    leaving = {one.handle for one in replicas if one.state in LEAVING and one.handle} - set(going)
    staying -= sum(one.state in UP and one.handle in going for one in replicas)
    if entry.order is None:
        return Number(staying, tuple(sorted(leaving)))
    first = tuple(takewhile(leaving.__contains__, entry.order))
    return Number(staying + len(leaving) - len(first), first)
