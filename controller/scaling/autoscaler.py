"""Autoscaler: one look at the registry and at demand, and what should run from then on.

It keeps what `decide` leaves for the next look, by group: the deployments of one model under one profile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean
from typing import NamedTuple

from controller.scaling.budget import Claim, shared
from controller.scaling.capacity import Capacity, capacity_of, lengths_of
from controller.scaling.counts import Counts, follow
from controller.scaling.decide import Decision, Limits, Memory, Seen, decide
from controller.scaling.leaving import leaving
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand, GroupDemand
from model_registry.entities import Deployment, Scaling
from model_registry.replicas import Replica, Signal
from model_registry.snapshot import Snapshot

UP = frozenset({"starting", "ready"})


class Member(NamedTuple):
    """One scaled deployment of a group."""

    deployment: Deployment
    scaling: Scaling
    replicas: Sequence[Replica]
    capacity: Capacity
    cost: float
    """Of one replica for an hour."""

    @property
    def up(self) -> int:
        """Replicas that are ready or on their way."""
        return sum(one.state in UP for one in self.replicas)


@dataclass(slots=True)
class _Group:
    counts: Counts | None = None
    memory: Memory = field(default_factory=Memory)


class Autoscaler:
    """Remembers one history per group; a new leader begins with none, and holds what there is meanwhile."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand) -> dict[str, Wanted]:
        """For every deployment with `scaling`. `now_s`: on the clock of the demand."""
        groups = dict(_groups(snapshot))
        for name in self._groups.keys() - groups.keys():
            del self._groups[name]
        wanted: dict[str, Wanted] = {}
        for name, deployments in groups.items():
            wanted.update(self._look(name, deployments, now_s, snapshot, demand))
        return _within_pools(wanted, snapshot)

    def _look(
        self, name: str, deployments: Sequence[Deployment], now_s: float, snapshot: Snapshot, demand: Demand
    ) -> Iterator[tuple[str, Wanted]]:
        group = self._groups.setdefault(name, _Group())
        known = demand.groups.get(name, GroupDemand())
        fresh = demand.age_s is not None
        since = None
        if fresh:
            guess = lengths_of(next((d.card for d in deployments if d.card is not None), None))
            group.counts, since = follow(group.counts, demand.at_s, known, guess)
        members, standing = _members(deployments, group.counts, snapshot)
        if not members:
            return
        first = members[0].capacity
        seen = Seen(
            demand.age_s,
            None if since is None else since.arrivals * first.request_s,
            known.waiting * first.request_s,
            _requests(deployments, demand) / first.batch,
            known.waiting + _requests(deployments, demand),
            known.held,
        )
        limits = Limits(
            standing + sum(one.scaling.min_replicas for one in members),
            standing + sum(one.scaling.max_replicas for one in members),
            max(one.scaling.idle_s for one in members),
            max(_cold_start_s(one, snapshot) for one in members),
        )
        up = standing + sum(one.up for one in members)
        decision, group.memory = decide(now_s, seen, up, limits, group.memory)
        signals = tuple(_signals(decision, seen, first, demand.age_s))
        for member, replicas in _split(members, decision.replicas - standing):
            yield (
                member.deployment.name,
                Wanted(
                    replicas,
                    decision.reason,
                    signals,
                    leaving(member.deployment, member.replicas, demand),
                ),
            )


def _groups(snapshot: Snapshot) -> Iterator[tuple[str, Sequence[Deployment]]]:
    for model, deployments in snapshot.deployments.items():
        by_profile: defaultdict[str, list[Deployment]] = defaultdict(list)
        for deployment in deployments:
            by_profile[deployment.profile].append(deployment)
        for profile, of_profile in by_profile.items():
            if any(one.scaling is not None for one in of_profile):
                yield f"{model}:{profile}", of_profile


def _members(
    deployments: Sequence[Deployment], counts: Counts | None, snapshot: Snapshot
) -> tuple[list[Member], int]:
    """The scaled ones, the cheapest per request first; and replicas of the others, which stay as they are."""
    members: list[Member] = []
    standing = 0
    for one in deployments:
        if one.scaling is None:
            standing += len(one.servers) if one.weight else 0
            continue
        lengths = lengths_of(one.card) if counts is None else counts.lengths
        capacity = capacity_of(one, snapshot.knobs(one.profile), lengths)
        pool = snapshot.pools.get(one.scaling.pool)
        cost = 1.0 if pool is None else pool.cost_per_hour
        members.append(Member(one, one.scaling, snapshot.replicas.get(one.name, ()), capacity, cost))
    members.sort(key=lambda one: (one.cost * one.capacity.request_s, one.deployment.name))
    return members, standing


def _split(members: Sequence[Member], replicas: int) -> Iterator[tuple[Member, int]]:
    """So many replicas of the first member's capacity, over all: everyone's least, then the cheapest."""
    unit = members[0].capacity.requests_per_s
    left = replicas - sum(one.scaling.min_replicas * one.capacity.requests_per_s / unit for one in members)
    for one in members:
        worth = one.capacity.requests_per_s / unit
        more = min(one.scaling.max_replicas - one.scaling.min_replicas, max(0, ceil(left / worth - 1e-9)))
        left -= more * worth
        yield one, one.scaling.min_replicas + more


def _requests(deployments: Sequence[Deployment], demand: Demand) -> int:
    """In flight at endpoints of these deployments."""
    names = {one.name for one in deployments}
    return sum(one.requests for name, one in demand.endpoints.items() if name.rpartition("@")[0] in names)


def _cold_start_s(member: Member, snapshot: Snapshot) -> float:
    """The mean of the starts that are still to be seen, else what was learned, else the guess."""
    seen = [one.cold_start_s for one in member.replicas if one.cold_start_s is not None]
    if seen:
        return fmean(seen)
    status = snapshot.scaling.get(member.deployment.name)
    if status is not None and status.cold_start_s is not None:
        return status.cold_start_s
    return member.scaling.cold_start_s


def _signals(decision: Decision, seen: Seen, capacity: Capacity, age_s: float | None) -> Iterator[Signal]:
    yield Signal(name="load", value=decision.rate, unit="replicas", source="gateways", age_s=age_s)
    yield Signal(name="waiting", value=seen.backlog, unit="replica-seconds", source="gateways", age_s=age_s)
    yield Signal(name="in_flight", value=seen.busy, unit="replicas", source="gateways", age_s=age_s)
    yield Signal(name="held", value=seen.held, unit="requests", source="gateways", age_s=age_s)
    yield Signal(
        name="capacity",
        value=capacity.requests_per_s,
        unit="requests/s per replica",
        source="card",
        age_s=None,
    )


def _within_pools(wanted: Mapping[str, Wanted], snapshot: Snapshot) -> dict[str, Wanted]:
    """What pools allow."""
    scalings = {
        one.name: one.scaling
        for group in snapshot.deployments.values()
        for one in group
        if one.scaling is not None
    }
    by_pool: defaultdict[str, dict[str, Claim]] = defaultdict(dict)
    for name, one in wanted.items():
        by_pool[scalings[name].pool][name] = Claim(scalings[name].min_replicas, one.replicas)
    fitted = dict(wanted)
    for pool_name, claims in by_pool.items():
        pool = snapshot.pools.get(pool_name)
        for name, replicas in shared(None if pool is None else pool.max_replicas, claims).items():
            if replicas < wanted[name].replicas:
                reason = f"{wanted[name].reason}; pool {pool_name} has room for {replicas}"
                fitted[name] = wanted[name]._replace(replicas=replicas, reason=reason)
    return fitted
