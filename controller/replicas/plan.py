"""Plan: what is to be done about the replicas of one pool now. Pure.

It goes by numbers that others decide (`Wanted`) and never takes away what is healthy because nothing was
heard: while reports are stale, or a gateway's are missing, there are as many replicas as there were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.replicas.acts import (
    NEVER_FAILED,
    NO_BACKOFF,
    UNSEEN,
    Act,
    Backoff,
    Drain,
    GiveUp,
    Seen,
    Start,
    Stop,
    TakeBack,
)
from controller.replicas.config import ReplicasConfig
from controller.replicas.placing import Full, place_for, stand_in, undrained
from controller.replicas.records import FOUND
from controller.residency.pool import NOTHING_KNOWN, Known, is_packed, resident
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.drains import Drain as ServerDrain
from model_registry.entities import Deployment
from model_registry.pools import Pool
from model_registry.replicas import Replica

NOT_WANTED = "its deployment is not in this pool any more"
LOST = "it is not there any more"
REMOVED = "its server is not in the pool any more"
DRAINED = "an operator drains its server"
FEWER = "fewer are wanted"
AGAIN = "it is wanted again"
DEFAULTS = ReplicasConfig()


class Planned(NamedTuple):
    """What to do, and why a deployment cannot have what it wants."""

    acts: tuple[Act, ...]
    held_up: Mapping[str, str]
    """By deployment."""


def plan(
    now_s: float,
    pool: Pool,
    deployments: Sequence[Deployment],
    replicas: Sequence[Replica],
    wanted: Mapping[str, Wanted],
    demand: Demand,
    *,
    seen: Mapping[str, Seen],
    backoffs: Mapping[str, Backoff] = NO_BACKOFF,
    config: ReplicasConfig = DEFAULTS,
    known: Known = NOTHING_KNOWN,
    moving: Collection[str] = (),
    drains: Iterable[ServerDrain] = (),
) -> Planned:
    """`deployments` and `replicas`: those of the pool; `seen`: by replica; `now_s`: Redis time.

    `known`: what residency has learned; it decides where servers have memory budgets. `moving`: deployments
    that left for another pool, where they do not have what they want yet. `drains`: operators'; nothing is
    placed there.
    """
    there = undrained(pool, drains)
    planning = _Planning(now_s, there, replicas, wanted, demand, seen, backoffs, config, known, moving)
    return planning.of(deployments, packed=is_packed(pool))


@dataclass(slots=True)
class _Group:
    """The replicas of one deployment that may stay."""

    deployment: Deployment
    want: int
    well: list[Replica]
    """Starting, or ready and serving."""
    unwell: list[Replica]
    """Ready by its record, and not seen serving for too long, or on a server that has left the pool."""
    draining: list[Replica]
    ending: int

    @property
    def missing(self) -> int:
        return self.want - len(self.well)


@dataclass(slots=True)
class _Planning:
    now_s: float
    pool: Pool
    replicas: Sequence[Replica]
    wanted: Mapping[str, Wanted]
    demand: Demand
    seen: Mapping[str, Seen]
    backoffs: Mapping[str, Backoff]
    config: ReplicasConfig
    known: Known
    moving: Collection[str]
    acts: list[Act] = field(default_factory=list)
    held_up: dict[str, str] = field(default_factory=dict)
    occupied: list[Replica] = field(default_factory=list)
    """What takes room, the replicas that are to be started included."""

    def of(self, deployments: Sequence[Deployment], *, packed: bool) -> Planned:
        self.occupied = list(self.replicas)
        over = [act for replica in self.replicas for act in self._over(replica, deployments)]
        self.acts += over
        moved = {act.replica.name for act in over if not isinstance(act, Start)}
        groups = [
            self._group(one, moved)
            for one in sorted(deployments, key=lambda one: one.name)
            if one.scaling is not None
        ]
        if packed:
            self._pack(groups, moved)
            return Planned(tuple(self.acts), self.held_up)
        for group in groups:
            self._take_back(group)
        self._start(groups)
        for group in groups:
            self._replace(group)
            reason = self._why(group) if group.deployment.name in self.wanted else FEWER
            self._reduce(group, group.want, reason)
        return Planned(tuple(self.acts), self.held_up)

    # -- single replicas -----------------------------------------------------------------------------------

    def _over(self, replica: Replica, deployments: Sequence[Deployment]) -> Iterator[Act]:
        """What is over for it whatever the numbers are."""
        seen = self._seen(replica)
        homeless = not any(one.name == replica.deployment for one in deployments)
        match replica.state:
            case "draining":
                if (reason := self._drained(replica)) is not None:
                    yield Stop(replica, reason)
            case "ready" if seen.lost:
                yield GiveUp(replica, LOST)
            case "ready" if homeless and replica.deployment not in self.moving:
                yield Drain(replica, NOT_WANTED)
            case "starting" if homeless:
                yield Stop(replica, NOT_WANTED)
            case "starting" if seen.drained and replica.reason == FOUND:
                if seen.endpoint is not None:
                    yield Drain(replica, DRAINED)
            case "starting" if seen.drained:
                yield Stop(replica, DRAINED)
            case "starting" if self.now_s - replica.since > self.config.ready_within_s:
                why = f": {seen.reason}" if seen.reason else ""
                yield GiveUp(replica, f"it was not ready within {self.config.ready_within_s:g} s{why}")

    def _drained(self, replica: Replica) -> str | None:
        """Why it may stop; None while requests may be under way: at gateways that are silent, too."""
        seen = self._seen(replica)
        if seen.lost:
            return LOST
        if seen.endpoint is None:
            return "nobody was told of it"
        if self.now_s - replica.since >= self.config.drain_s:
            return f"requests had {self.config.drain_s:g} s to finish"
        out_at = self.now_s - seen.out_s
        if (
            not seen.ready
            and seen.out_s > 0
            and self.demand.age_s is not None
            and self.demand.at_s - self.demand.age_s >= out_at + self.config.settle_s
            and self.demand.silent == 0
            and self._in_flight(replica) == 0
        ):
            return "nothing is in flight there"
        return None

    # -- numbers -------------------------------------------------------------------------------------------

    def _group(self, deployment: Deployment, moved: set[str]) -> _Group:
        own = [one for one in self.replicas if one.deployment == deployment.name and one.name not in moved]
        up = [one for one in own if one.state in {"starting", "ready"}]
        unwell = [one for one in up if self._unwell(one)]
        well = [one for one in up if one not in unwell]
        draining = [one for one in own if one.state == "draining"]
        ending = sum(one.state in {"stopping", "failed"} for one in own)
        return _Group(deployment, self._want(deployment, len(up)), well, unwell, draining, ending)

    def _want(self, deployment: Deployment, up: int) -> int:
        scaling, said = deployment.scaling, self.wanted.get(deployment.name)
        assert scaling is not None
        if said is None:
            return min(max(up, scaling.min_replicas), scaling.max_replicas)
        if self._stale() or self.demand.silent:
            return min(max(said.replicas, up), scaling.max_replicas)
        return min(said.replicas, scaling.max_replicas)

    def _stale(self) -> bool:
        return self.demand.age_s is None or self.demand.age_s > self.config.stale_after_s

    def _take_back(self, group: _Group) -> None:
        leaving = self._leaving(group)
        willing = [one for one in group.draining if one.name not in leaving and not self._seen(one).lost]
        willing.sort(key=lambda one: (-self._in_flight(one), one.created))
        for replica in willing[: max(0, group.missing)]:
            self.acts.append(TakeBack(replica, AGAIN))
            group.well.append(replica)

    def _start(self, groups: Sequence[_Group]) -> None:
        """One by one, to whoever has the smallest part of what it wants."""
        left = {group.deployment.name: self._startable(group) for group in groups}
        up = {group.deployment.name: len(group.well) for group in groups}
        while any(left.values()):
            group = min(
                (one for one in groups if left[one.deployment.name]),
                key=lambda one: up[one.deployment.name] / one.want,
            )
            name = group.deployment.name
            try:
                place = place_for(self.pool, group.deployment, self.occupied)
            except Full as full:
                self.held_up[name] = str(full)
                left[name] = 0
                continue
            self.acts.append(Start(group.deployment, place, self._why(group)))
            self.occupied.append(stand_in(group.deployment, self.pool, place, len(self.occupied)))
            left[name] -= 1
            up[name] += 1

    def _startable(self, group: _Group) -> int:
        """How many may be started now: after a failure one at a time, and not before its time."""
        missing, name = max(0, group.missing), group.deployment.name
        backoff = self._backoff(name)
        if missing == 0 or backoff.failures == 0:
            return missing
        if backoff.holds_up(self.now_s):
            self.held_up[name] = f"starts failed ({backoff.failures} in a row); the next has to wait"
            return 0
        return 0 if any(one.state == "starting" for one in group.well) else 1

    def _replace(self, group: _Group) -> None:
        """Those that do not serve go once others do, or one by one where there is room for no other."""
        serving = sum(self._seen(one).ready for one in group.well)
        removed = [one for one in group.unwell if self._seen(one).removed]
        broken = [one for one in group.unwell if not self._seen(one).drained and one not in removed]
        if group.unwell and serving >= group.want:
            self.acts += [Drain(one, self._unwell_why(one)) for one in group.unwell]
        elif removed and group.missing > 0 and self._is_full(group):
            self.acts += [Drain(one, REMOVED) for one in removed]
        elif broken and not group.ending and group.missing > 0 and self._is_full(group):
            worst = max(broken, key=lambda one: self._seen(one).out_s)
            self.acts.append(GiveUp(worst, self._unwell_why(worst)))

    def _is_full(self, group: _Group) -> bool:
        try:
            place_for(self.pool, group.deployment, self.occupied)
        except Full:
            return True
        return False

    def _reduce(self, group: _Group, most: int, reason: str) -> None:
        """What was found running may be serving, and is judged once that is known."""
        judged = [one for one in group.well if one.state != "starting" or one.reason != FOUND]
        surplus = len(judged) - most
        if surplus <= 0:
            return
        leaving = self._leaving(group)
        order = sorted(judged, key=lambda one: (leaving.get(one.name, len(leaving)), *self._use(one)))
        for replica in order[:surplus]:
            self.acts.append(Stop(replica, reason) if replica.state == "starting" else Drain(replica, reason))

    def _use(self, replica: Replica) -> tuple[bool, int, float]:
        """Least first: not ready, then fewest in flight, then youngest."""
        return self._seen(replica).ready, self._in_flight(replica), -replica.created

    def _leaving(self, group: _Group) -> dict[str, int]:
        said = self.wanted.get(group.deployment.name)
        return {} if said is None else {name: at for at, name in enumerate(said.leaving)}

    def _why(self, group: _Group) -> str:
        said = self.wanted.get(group.deployment.name)
        return f"{group.want} wanted" if said is None else f"{group.want} wanted: {said.reason}"

    def _pack(self, groups: Sequence[_Group], moved: set[str]) -> None:
        """Where memory decides: what does not serve goes, and comes again when it is asked for.

        But not what an operator drains: requests may be under way there, for as long as they take.
        """
        unwell = [one for group in groups for one in group.unwell if not self._seen(one).drained]
        self.acts += [
            Drain(one, REMOVED) if self._seen(one).removed else GiveUp(one, self._unwell_why(one))
            for one in unwell
        ]
        for group in groups:
            scaling = group.deployment.scaling
            assert scaling is not None
            self._reduce(group, scaling.max_replicas, f"max_replicas is {scaling.max_replicas}")
            if len(group.well) < scaling.min_replicas:
                self.held_up[group.deployment.name] = (
                    f"{len(group.well)} in memory, of min_replicas {scaling.min_replicas}: "
                    "the next waits for room, or for the load before it"
                )
        if self._stale():
            return
        names = (group.deployment.name for group in groups)
        waits = {name for name in names if self._backoff(name).holds_up(self.now_s)}
        acts = resident(
            self.now_s,
            self.pool,
            [group.deployment for group in groups],
            self.replicas,
            self.wanted,
            self.demand,
            seen=self.seen,
            known=self.known,
            waits=waits,
        )
        busy = moved | {act.replica.name for act in self.acts if not isinstance(act, Start)}
        self.acts += [act for act in acts if isinstance(act, Start) or act.replica.name not in busy]

    # -- facts ---------------------------------------------------------------------------------------------

    def _backoff(self, name: str) -> Backoff:
        return self.backoffs.get(name, NEVER_FAILED)

    def _seen(self, replica: Replica) -> Seen:
        return self.seen.get(replica.name, UNSEEN)

    def _unwell(self, replica: Replica) -> bool:
        seen = self._seen(replica)
        out = not seen.ready and seen.out_s > self.config.replace_after_s
        return replica.state == "ready" and seen.endpoint is not None and (out or seen.removed)

    def _unwell_why(self, replica: Replica) -> str:
        seen = self._seen(replica)
        if seen.removed:
            return REMOVED
        why = f": {seen.reason}" if seen.reason else ""
        return f"it has not served for {seen.out_s:.0f} s{why}"

    def _in_flight(self, replica: Replica) -> int:
        endpoint = self._seen(replica).endpoint
        told = None if endpoint is None else self.demand.endpoints.get(endpoint)
        return 0 if told is None else told.requests
