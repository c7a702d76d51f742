"""Groups: the deployments of one model under one profile, which share its load. Pure.

Replicas of a group are counted in those of its cheapest deployment: one of twice its capacity is two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor
from statistics import fmean
from typing import NamedTuple

from controller.scaling.capacity import Capacity, Lengths, capacity_of, lengths_of
from controller.scaling.decide import Fleet, Limits
from model_registry.entities import Deployment, Scaling
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot

STARTS = 8
"""The latest starts that are still to be seen, of which the mean is taken."""
_LITTLE = 1e-9


class Member(NamedTuple):
    """One scaled deployment."""

    deployment: Deployment
    scaling: Scaling
    replicas: Sequence[Replica]
    capacity: Capacity
    cost: float
    """Of one replica for an hour."""
    cold_start_s: float

    def count(self, state: str) -> int:
        """Replicas in that state."""
        return sum(one.state == state for one in self.replicas)


class Group(NamedTuple):
    """`members`: those that have a weight, the cheapest per request first; there may be none."""

    members: Sequence[Member]
    spares: Sequence[Member]
    """Those of weight 0: they serve nobody, unless a rollout sends them something."""
    standing: float
    """What deployments without `scaling` add."""
    names: frozenset[str]
    """Of all its deployments."""

    @property
    def unit(self) -> Capacity:
        """What one replica of the count is."""
        return (self.members or self.spares)[0].capacity

    def worth(self, member: Member) -> float:
        """One of its replicas, in those of the count."""
        return member.capacity.requests_per_s / self.unit.requests_per_s

    @property
    def fleet(self) -> Fleet:
        """What there is of it."""
        ready = self.standing + sum(self.worth(one) * one.count("ready") for one in self.members)
        up = ready + sum(self.worth(one) * one.count("starting") for one in self.members)
        return Fleet(floor(ready + _LITTLE), floor(up + _LITTLE) - floor(ready + _LITTLE))

    @property
    def limits(self) -> Limits:
        """What is set for all of it together."""
        least = self.standing + sum(self.worth(one) * one.scaling.min_replicas for one in self.members)
        most = self.standing + sum(self.worth(one) * one.scaling.max_replicas for one in self.members)
        return Limits(
            ceil(least - _LITTLE),
            max(ceil(least - _LITTLE), floor(most + _LITTLE)),
            max(one.scaling.idle_s for one in self.members),
            max(one.cold_start_s for one in self.members),
            self.unit.wait_s,
            self.unit.request_s,
        )

    def split(self, replicas: int) -> Iterator[tuple[Member, int]]:
        """So many of the count, over all members: everyone's least, then the cheapest."""
        left = replicas - self.standing
        left -= sum(self.worth(one) * one.scaling.min_replicas for one in self.members)
        for one in self.members:
            room = one.scaling.max_replicas - one.scaling.min_replicas
            more = min(room, max(0, ceil(left / self.worth(one) - _LITTLE)))
            left -= more * self.worth(one)
            yield one, one.scaling.min_replicas + more


def scaled(snapshot: Snapshot) -> Iterator[tuple[str, Sequence[Deployment]]]:
    """By `<model>:<profile>`, those with a deployment that has `scaling`."""
    for model, deployments in snapshot.deployments.items():
        by_profile: defaultdict[str, list[Deployment]] = defaultdict(list)
        for deployment in deployments:
            by_profile[deployment.profile].append(deployment)
        for profile, of_profile in by_profile.items():
            if any(one.scaling is not None for one in of_profile):
                yield f"{model}:{profile}", of_profile


def group_of(deployments: Sequence[Deployment], lengths: Lengths | None, snapshot: Snapshot) -> Group:
    """`lengths`: of its requests, as far as they are known."""
    members: list[Member] = []
    spares: list[Member] = []
    fixed: list[tuple[int, Capacity]] = []
    for one in deployments:
        capacity = capacity_of(one, snapshot.knobs(one.profile), lengths or lengths_of(one.card))
        if one.scaling is None:
            fixed.append((len(one.servers) if one.weight else 0, capacity))
            continue
        pool = snapshot.pools.get(one.scaling.pool)
        cost = 1.0 if pool is None else pool.cost_per_hour
        replicas = snapshot.replicas.get(one.name, ())
        member = Member(one, one.scaling, replicas, capacity, cost, _cold_start_s(one, one.scaling, snapshot))
        (members if one.weight else spares).append(member)
    members.sort(key=lambda one: (one.cost * one.capacity.request_s, one.deployment.name))
    unit = (members or spares)[0].capacity.requests_per_s
    standing = sum(servers * capacity.requests_per_s / unit for servers, capacity in fixed)
    return Group(members, spares, standing, frozenset(one.name for one in deployments))


def _cold_start_s(deployment: Deployment, scaling: Scaling, snapshot: Snapshot) -> float:
    """The mean of the latest starts that are still to be seen, else what was learned, else the guess."""
    seen = sorted(
        (one.created, one.cold_start_s)
        for one in snapshot.replicas.get(deployment.name, ())
        if one.cold_start_s is not None
    )
    if seen:
        return fmean(cold_start_s for _, cold_start_s in seen[-STARTS:])
    status = snapshot.scaling.get(deployment.name)
    if status is not None and status.cold_start_s is not None:
        return status.cold_start_s
    return scaling.cold_start_s
