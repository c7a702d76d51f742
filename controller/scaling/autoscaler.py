"""Autoscaler: one look at the registry and at demand, and what should run from then on.

It keeps what `decide` leaves for the next look, by group: the deployments of one model under one profile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from controller.scaling.budget import Claim, shared
from controller.scaling.capacity import lengths_of
from controller.scaling.counts import Counts, Since, follow
from controller.scaling.decide import Decision, Memory, Seen, decide
from controller.scaling.figures import NO_FIGURES, Figures, told
from controller.scaling.groups import Group, group_of, scaled
from controller.scaling.leaving import leaving
from controller.scaling.lending import Side, lent
from controller.scaling.signals import signals_of
from controller.scaling.trial import trial_of
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import LAPSES_S, Demand, GroupDemand
from model_registry.replicas import Signal
from model_registry.snapshot import Snapshot

LAPSED_S = 60.0
"""After so long without a look what was known of loads is old: another controller led, or nothing could be
read. Where looks are rarer than that by themselves, three times as long as the last two were apart."""


@dataclass(slots=True)
class _History:
    counts: Counts | None = None
    memory: Memory = field(default_factory=Memory)
    figures: Figures = NO_FIGURES


class _Decided(NamedTuple):
    """About one group."""

    group: Group
    seen: Seen
    decision: Decision
    signals: tuple[Signal, ...]


class Autoscaler:
    """Remembers one history per group; a new leader begins with none, and holds what there is meanwhile."""

    def __init__(self, stale_after_s: float = LAPSES_S) -> None:
        """`stale_after_s`: reports that are older say nothing of now."""
        self._stale_after_s = stale_after_s
        self._histories: dict[str, _History] = {}
        self._looked_s: float | None = None
        self._gap_s = 0.0
        """Between the last two looks."""

    def look(self, now_s: float, snapshot: Snapshot, demand: Demand) -> dict[str, Wanted]:
        """For every deployment with `scaling`. `now_s`: on the clock of the demand."""
        groups = dict(scaled(snapshot))
        heard = demand.age_s is not None and demand.age_s <= self._stale_after_s
        gap_s = 0.0 if self._looked_s is None else now_s - self._looked_s
        lapsed = not 0 <= gap_s <= max(LAPSED_S, 3 * self._gap_s)
        self._looked_s, self._gap_s = now_s, max(0.0, gap_s)
        for name in self._histories.keys() - groups.keys():
            del self._histories[name]
        decided: dict[str, _Decided] = {}
        for name, deployments in groups.items():
            history = self._histories.setdefault(name, _History())
            known, since = demand.groups.get(name, GroupDemand()), None
            if history.counts is not None and (lapsed or not heard):
                history.counts = history.counts._replace(group=None)
                history.figures = history.figures._replace(begun=None)
            if heard:
                guess = lengths_of(next((one.card for one in deployments if one.card is not None), None))
                history.counts, since = follow(history.counts, known, guess)
                history.figures = told(history.figures, now_s, known)
            lengths = None if history.counts is None else history.counts.lengths
            group = group_of(deployments, lengths, snapshot)
            seen = _seen(group, known, since, history.counts, demand)
            if group.members:
                limits = group.limits._replace(stale_after_s=self._stale_after_s)
                decision, history.memory = decide(now_s, seen, group.fleet, limits, history.memory)
            else:
                decision = Decision(ceil(group.standing), "what serves has no scaling")
            signals = tuple(signals_of(now_s, group, seen, decision, history.figures, snapshot, demand))
            decided[name] = _Decided(group, seen, decision, signals)
        changed = _after_lending(decided, snapshot)
        return _within_pools(
            {**dict(_wanted(changed, demand)), **dict(_tried(changed, snapshot, demand))}, snapshot
        )


def _seen(
    group: Group, known: GroupDemand, since: Since | None, counts: Counts | None, demand: Demand
) -> Seen:
    unit = group.unit
    requests = sum(
        one.requests for name, one in demand.endpoints.items() if name.rpartition("@")[0] in group.names
    )
    if since is None or counts is None:
        return Seen(demand.age_s, requests=known.waiting + requests, held=known.held)
    answers = since.arrivals * counts.lengths.output
    learns = unit.attainable  # else more replicas would make no answer come in time
    return Seen(
        demand.age_s,
        unit.work_s(since.prompt_tokens, answers),
        unit.work_s(known.waiting_tokens, known.waiting * counts.lengths.output),
        requests / unit.batch,
        known.waiting + requests,
        known.held,
        since.answered if learns else 0,
        since.late if learns else 0,
        since.paced if learns else 0,
        since.slow if learns else 0,
        since.refused,
    )


def _after_lending(decided: Mapping[str, _Decided], snapshot: Snapshot) -> Mapping[str, _Decided]:
    """Model by model, for the groups whose deployments all lend."""
    models: defaultdict[str, dict[str, Side]] = defaultdict(dict)
    for name, one in decided.items():
        model, _, profile = name.rpartition(":")
        if one.group.members and all(member.scaling.lends for member in one.group.members):
            models[model][profile] = _side(one, profile, snapshot)
    changed = dict(decided)
    for model, sides in models.items():
        for profile, new in lent(sides).items():
            name = f"{model}:{profile}"
            if new.reason:
                before = decided[name].decision
                reason = f"{before.reason}; {new.reason}"
                changed[name] = decided[name]._replace(
                    decision=before._replace(replicas=new.wanted, reason=reason)
                )
    return changed


def _side(one: _Decided, profile: str, snapshot: Snapshot) -> Side:
    knobs, fleet = snapshot.knobs(profile), one.group.fleet
    return Side(
        one.decision.replicas,
        fleet.ready,
        fleet.up,
        one.group.limits.least,
        one.seen.held,
        max(one.decision.load, one.decision.expected) / one.decision.fill,
        one.group.unit.requests_per_s,
        knobs.spills_to,
        knobs.spill_when_full,
    )


def _wanted(decided: Mapping[str, _Decided], demand: Demand) -> Iterator[tuple[str, Wanted]]:
    """For what serves."""
    for group, _, decision, signals in decided.values():
        if not group.members:
            continue
        for member, replicas in group.split(decision.replicas):
            going = leaving(member.deployment, member.replicas, demand)
            yield member.deployment.name, Wanted(replicas, decision.reason, signals, going)


def _tried(
    decided: Mapping[str, _Decided], snapshot: Snapshot, demand: Demand
) -> Iterator[tuple[str, Wanted]]:
    """For what has no weight."""
    for group, _, decision, _ in decided.values():
        for member in group.spares:
            name, scaling = member.deployment.name, member.scaling
            trial = trial_of(name, decision.replicas / group.worth(member), snapshot)
            replicas = min(max(trial.replicas, scaling.min_replicas), scaling.max_replicas)
            going = leaving(member.deployment, member.replicas, demand)
            yield name, Wanted(replicas, trial.reason, leaving=going)


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
