"""Members: replicas that somebody else places (Kubernetes); records follow them, a number is set. Pure.

Which member goes when the number falls is not for us to say, or only in part. So requests leave those that
will go, in that order, and the number falls by no more than have none left at the front of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from controller.actuators.port import Member
from controller.replicas.acts import Act, Drain, GiveUp, Start, Stop, TakeBack
from controller.replicas.placing import target_of
from controller.replicas.records import moved
from controller.scaling.wanted import Wanted
from model_registry.entities import Deployment
from model_registry.pools import Pool
from model_registry.replicas import Replica

GOING = "it is being taken down"
Leavers = Callable[[Sequence[Member], int, Sequence[str]], tuple[str, ...]]
"""`controller.actuators.port.Workload.leavers`."""


class Crew(NamedTuple):
    """The members of one deployment, as last seen."""

    members: Sequence[Member]
    leavers: Leavers
    sets_number: bool


class Number(NamedTuple):
    """What to ask of a workload."""

    replicas: int
    leaving: tuple[str, ...]
    """Handles of those that should go first."""


def followed(
    records: Sequence[Replica],
    crew: Crew,
    deployment: Deployment,
    pool: Pool,
    taken: Collection[str],
    now_s: float,
) -> tuple[list[Replica], bool]:
    """The deployment's records after a look, and whether there are new ones among them."""
    members = {one.handle: one for one in crew.members}
    kept: list[Replica] = []
    for record in records:
        member = members.pop(record.handle or "", None)
        if member is None:
            continue
        if member.terminating and record.state in {"starting", "ready"}:
            record = moved(record, "draining", GOING, now_s)
        kept.append(record)
    staying = [member for member in members.values() if not member.terminating]
    new = [_record(member, deployment, pool, taken, now_s) for member in staying]
    return [*kept, *new], bool(new)


def in_their_order(wanted: Wanted, crew: Crew, records: Iterable[Replica]) -> Wanted:
    """With those first that will be taken first."""
    names = {one.handle: one.name for one in records if one.handle is not None}
    handles = {name: handle for handle, name in names.items()}
    preferred = [handles[name] for name in wanted.leaving if name in handles]
    order = crew.leavers(crew.members, len(crew.members), preferred)
    return wanted._replace(leaving=tuple(names[handle] for handle in order if handle in names))


def allowed(acts: Sequence[Act], crew: Crew, records: Sequence[Replica]) -> tuple[list[Act], int]:
    """The acts that a number can bring about, and how many members it should grow by.

    One that may not stop yet drains until all before it may, too. Starts that failed are the workload's own
    business.
    """
    more = sum(isinstance(act, Start) or (isinstance(act, TakeBack) and _goes(act.replica)) for act in acts)
    ours = [act for act in acts if not isinstance(act, Start | GiveUp) and not _goes(act.replica)]
    stopping = {one.handle for one in records if one.state == "stopping"}
    stops = [act for act in ours if isinstance(act, Stop)]
    may_go = _front(crew, {*stopping, *(act.replica.handle for act in stops)})
    done: list[Act] = []
    for act in ours:
        if not isinstance(act, Stop) or act.replica.handle in may_go:
            done.append(act)
        elif act.replica.state != "draining":
            done.append(Drain(act.replica, act.reason))
    return done, more


def number_of(records: Iterable[Replica], more: int) -> Number:
    """From the records as they will be."""
    there = list(records)
    staying = sum(one.state in {"starting", "ready", "draining"} and not _goes(one) for one in there)
    leaving = [one.handle for one in there if one.state == "stopping" and one.handle is not None]
    return Number(staying + more, tuple(leaving))


def hint(wanted: Wanted, crew: Crew, records: Sequence[Replica]) -> Number:
    """For a workload whose number somebody else sets: who should go first, if it falls to what is wanted."""
    up = [one for one in records if one.state in {"starting", "ready"}]
    handles = {one.name: one.handle for one in up if one.handle is not None}
    preferred = [handle for name in wanted.leaving if (handle := handles.get(name)) is not None]
    count = max(0, len(up) - wanted.replicas)
    return Number(wanted.replicas, crew.leavers(crew.members, count, preferred))


def _goes(record: Replica) -> bool:
    """Whoever asked for that: it is in no number any more."""
    return record.reason == GOING


def _front(crew: Crew, going: Collection[str | None]) -> set[str]:
    """The most of those that may go which the workload would take first."""
    preferred = [handle for handle in going if handle is not None]
    for count in range(len(preferred), 0, -1):
        taken = set(crew.leavers(crew.members, count, preferred))
        if taken <= set(preferred):
            return taken
    return set()


def _record(
    member: Member, deployment: Deployment, pool: Pool, taken: Collection[str], now_s: float
) -> Replica:
    name = f"{deployment.name}.{secrets.token_hex(3)}"
    while name in taken:
        name = f"{deployment.name}.{secrets.token_hex(3)}"
    return Replica(
        name=name,
        deployment=deployment.name,
        model=deployment.model,
        pool=pool.name,
        target=target_of(deployment),
        server=member.server,
        handle=member.handle,
        since=now_s,
        created=now_s,
        reason="found in its workload",
    )
