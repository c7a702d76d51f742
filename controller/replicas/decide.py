"""Decide: every replica record and status that the next version of the registry should hold. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from controller.replicas.acts import Backoff, Seen
from controller.replicas.adoption import Nameless, adopted
from controller.replicas.config import ReplicasConfig
from controller.replicas.errands import Outcome
from controller.replicas.placing import home_of
from controller.replicas.plan import plan
from controller.replicas.records import after, progressed
from controller.replicas.roster import (
    NOTHING_SEEN,
    Sighting,
    enrolled,
    foreseen,
    in_order,
    is_placed_elsewhere,
    patient,
)
from controller.replicas.status import NO_NEWS, News, backoff_after, status_of, worth_writing
from controller.residency.neighbours import drains, ours
from controller.residency.pool import NOTHING_KNOWN, Known, is_packed
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.entities import Deployment
from model_registry.kinds import Ref
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.snapshot import Snapshot, Stored


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision rests on beside the registry."""

    wanted: Mapping[str, Wanted]
    """By deployment."""
    demand: Demand
    seen: Mapping[str, Seen]
    """By replica."""
    outcomes: Mapping[str, Outcome]
    """By replica: what errands came to."""
    nameless: Sequence[Nameless]
    """What runs without a record."""
    figures_age_s: Mapping[str, float]
    """By deployment: how long ago its status was written; absent: long ago."""
    sighting: Sighting = NOTHING_SEEN
    """Of the workloads that somebody else places."""
    known: Known = NOTHING_KNOWN
    """What residency has learned."""
    unlooked: Collection[str] = ()
    """Pools that have not been looked at since there are deployments in them of which nothing is known."""


@dataclass(slots=True)
class Changes:
    """What to store and what to delete."""

    puts: list[Stored] = field(default_factory=list)
    gone: list[Ref] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    """All that there are from then on."""


def decide(snapshot: Snapshot, facts: Facts, config: ReplicasConfig, now_s: float) -> Changes:
    """`now_s`: Redis time."""
    changes = Changes()
    before = {one.name: one for one in chain(*snapshot.replicas.values())}
    deployments = {one.name: one for one in chain(*snapshot.deployments.values()) if one.scaling is not None}
    new = unknown(snapshot)
    deployments = {name: one for name, one in deployments.items() if new.get(name) not in facts.unlooked}
    roster = facts.sighting.roster
    moving = set(_moving(deployments, before.values(), facts.wanted, snapshot.pools))
    there = enrolled(before.values(), roster, snapshot.pools, deployments, moving, config, now_s)
    present, news = _progress(there, facts, now_s)
    present |= adopted(facts.nameless, snapshot, deployments, new, config.orphan_s, now_s)
    drained = drains(facts.known.restarts, present.values(), snapshot)
    changes.puts += [one for name, one in drained.items() if snapshot.drains.get(name) != one]
    changes.gone += [("Drain", one.name) for one in ours(snapshot) if one.name not in drained]
    backoffs = {
        name: backoff_after(snapshot.scaling.get(name), news.get(name, NO_NEWS), now_s, config)
        for name in deployments
    }
    wanted = in_order(foreseen(facts.wanted, before.values(), present.values()), roster, present.values())
    held_up = _plan_all(snapshot, deployments, present, wanted, facts, backoffs, config, now_s)
    changes.replicas = list(present.values())
    changes.puts += [one for one in present.values() if before.get(one.name) != one]
    changes.gone += [("Replica", name) for name in sorted(before.keys() - present.keys())]
    own: defaultdict[str, list[Replica]] = defaultdict(list)
    for one in present.values():
        own[one.deployment].append(one)
    statuses: list[tuple[ScalingStatus | None, ScalingStatus, float]] = []
    for name, deployment in deployments.items():
        status = status_of(
            deployment,
            wanted.get(name),
            own[name],
            news.get(name, NO_NEWS),
            snapshot.scaling.get(name),
            backoffs[name],
            held_up.get(name),
            now_s,
            facts.known.memories,
        )
        statuses.append((snapshot.scaling.get(name), status, facts.figures_age_s.get(name, 1e9)))
    changes.puts += worth_writing(statuses, anyway=bool(changes.puts or changes.gone))
    changes.gone += [("ScalingStatus", name) for name in sorted(snapshot.scaling.keys() - deployments.keys())]
    return changes


def unknown(snapshot: Snapshot) -> dict[str, str]:
    """Deployments that scale and of which the registry has neither status nor record, with their pool.

    Nothing is started for them before their pool has been looked at: where the registry was lost, they run.
    """
    known = {one.deployment for one in chain(*snapshot.replicas.values())} | snapshot.scaling.keys()
    return {
        one.name: one.scaling.pool
        for one in chain(*snapshot.deployments.values())
        if one.scaling is not None and one.name not in known
    }


def _progress(
    before: Mapping[str, Replica], facts: Facts, now_s: float
) -> tuple[dict[str, Replica], dict[str, News]]:
    """The records as they are now, and what has become of starts, by deployment."""
    present: dict[str, Replica] = {}
    news: dict[str, News] = {}
    for name, replica in before.items():
        seen = facts.seen.get(name, Seen())
        became = progressed(replica, facts.outcomes.get(name), seen, now_s)
        if became is None:
            continue
        present[name] = became
        if replica.state == "starting" and became.state in {"ready", "failed"}:
            told = news.get(replica.deployment, NO_NEWS)
            took = () if became.cold_start_s is None else (became.cold_start_s,)
            news[replica.deployment] = News(
                (*told.cold_starts_s, *took), told.failed + (became.state == "failed")
            )
    return present, news


def _plan_all(
    snapshot: Snapshot,
    deployments: Mapping[str, Deployment],
    present: dict[str, Replica],
    wanted: Mapping[str, Wanted],
    facts: Facts,
    backoffs: Mapping[str, Backoff],
    config: ReplicasConfig,
    now_s: float,
) -> dict[str, str]:
    """Puts what every pool's plan comes to into `present`; returns what holds deployments up."""
    held_up = dict(facts.sighting.problems)
    roster = facts.sighting.roster
    moving = set(_moving(deployments, present.values(), facts.wanted, snapshot.pools))
    elsewhere = {
        one.deployment
        for one in present.values()
        if one.state == "ready"
        and one.deployment in moving
        and one.pool != home_of(deployments[one.deployment])
    }
    for pool in snapshot.pools.values():
        homes = [one for one in deployments.values() if one.scaling and one.scaling.pool == pool.name]
        own = [one for one in present.values() if one.pool == pool.name]
        if is_placed_elsewhere(pool):  # of what is not seen nothing is changed
            homes = [one for one in homes if one.name in roster]
            own = [one for one in own if one.deployment in roster]
        planned = plan(
            now_s,
            pool,
            homes,
            own,
            wanted,
            facts.demand,
            seen=patient(facts.seen, roster, present.values()),
            backoffs=backoffs,
            config=config,
            known=facts.known._replace(elsewhere=elsewhere),
            moving=moving,
            drains=snapshot.drains.values(),
        )
        held_up |= planned.held_up
        for one in after(planned.acts, pool, present.keys(), now_s):
            present[one.name] = one
    return held_up


def _moving(
    deployments: Mapping[str, Deployment],
    replicas: Iterable[Replica],
    wanted: Mapping[str, Wanted],
    pools: Mapping[str, Pool],
) -> Iterator[str]:
    """Deployments that have not what they want in their pool: what they have in one that they left stays.

    Where memory decides, one replica is enough: more come only if they are worth it.
    """
    ready = Counter((one.deployment, one.pool) for one in replicas if one.state == "ready")
    for name, deployment in deployments.items():
        said, scaling = wanted.get(name), deployment.scaling
        if scaling is None or said is None:
            continue
        pool = pools.get(scaling.pool)
        enough = min(said.replicas, 1) if pool is not None and is_packed(pool) else said.replicas
        if ready[name, scaling.pool] < enough:
            yield name
