"""FleetRows: what a screen says of each deployment and each server of a pool, by two looks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import isfinite
from typing import NamedTuple

from controller.residency.pool import sum_mib
from model_registry.demand.demand import Demand, GroupDemand
from model_registry.entities import Deployment
from model_registry.pools import TritonActuator
from model_registry.replicas import ScalingStatus
from model_registry.snapshot import Snapshot

NOBODY = GroupDemand()


class GroupFigures(NamedTuple):
    """Of the requests for a model under a profile, whichever deployment serves them."""

    waiting: int
    held: int
    per_s: float | None
    """Requests that came; None: there is no earlier look to compare with."""
    ttft_s: float | None
    """Mean of the first tokens that came since the look before; None: none came."""
    late: float | None
    """Part of them that came later than their target."""


class DeploymentRow(NamedTuple):
    """A deployment: what it has, what it should have, and how its requests fare."""

    name: str
    model: str
    profile: str
    ready: int
    wanted: int
    """Of one that is not scaled: its endpoints, in whatever state."""
    starting: int
    draining: int
    in_flight: int
    load: float | None
    """In replicas that it keeps busy; None: nothing was decided."""
    expected: float | None
    """The same, a cold start ahead."""
    why: str
    figures: GroupFigures | None
    """None: an earlier row has told those of its model and profile."""


class ServerRow(NamedTuple):
    """One server of a pool of Tritons."""

    pool: str
    http: str
    ready: tuple[str, ...]
    """Deployments."""
    loading: tuple[str, ...]
    leaving: tuple[str, ...]
    taken_mib: float | None
    """None: the size of one of them is not known."""
    budget_mib: int | None


def deployment_rows(snapshot: Snapshot, now: Demand, before: Demand | None) -> Iterator[DeploymentRow]:
    """By model, profile and name."""
    told: set[tuple[str, str]] = set()
    everything = chain(*snapshot.deployments.values())
    for one in sorted(everything, key=lambda one: (one.model, one.profile, one.name)):
        group = (one.model, one.profile)
        figures = None if group in told else _figures(f"{one.model}:{one.profile}", now, before)
        told.add(group)
        yield _row(one, snapshot, now, figures)


def _row(
    deployment: Deployment, snapshot: Snapshot, now: Demand, figures: GroupFigures | None
) -> DeploymentRow:
    endpoints = [e for e in snapshot.endpoints.get(deployment.model, ()) if e.deployment == deployment.name]
    in_flight = sum(now.endpoints[e.name].requests for e in endpoints if e.name in now.endpoints)
    ready = sum(e.state == "ready" for e in endpoints)
    known = deployment.name, deployment.model, deployment.profile
    if deployment.scaling is None:
        why = next((e.reason for e in endpoints if e.state != "ready" and e.reason), "")
        return DeploymentRow(*known, ready, len(endpoints), 0, 0, in_flight, None, None, why or "", figures)
    status = snapshot.scaling.get(deployment.name)
    if status is None:
        why = "no controller has looked at it yet"
        return DeploymentRow(*known, ready, 0, 0, 0, in_flight, None, None, why, figures)
    return DeploymentRow(
        *known,
        status.ready,
        status.wanted,
        status.starting,
        status.draining,
        in_flight,
        _signal(status, "load"),
        _signal(status, "expected_load"),
        status.reason,
        figures,
    )


def _signal(status: ScalingStatus, name: str) -> float | None:
    return next((one.value for one in status.signals if one.name == name), None)


def _figures(group: str, now: Demand, before: Demand | None) -> GroupFigures:
    current = now.groups.get(group, NOBODY)
    if before is None or now.at_s <= before.at_s:
        return GroupFigures(current.waiting, current.held, None, None, None)
    earlier = before.groups.get(group, NOBODY)
    answered = current.first_tokens - earlier.first_tokens
    per_s = max(0, current.arrivals - earlier.arrivals) / (now.at_s - before.at_s)
    if answered <= 0:
        return GroupFigures(current.waiting, current.held, per_s, None, None)
    late = (current.ttft_missed - earlier.ttft_missed) / answered
    return GroupFigures(
        current.waiting, current.held, per_s, (current.ttft_s - earlier.ttft_s) / answered, late
    )


def server_rows(snapshot: Snapshot) -> Iterator[ServerRow]:
    """By pool, in the pool's own order."""
    deployments = {one.name: one for one in chain(*snapshot.deployments.values())}
    replicas = list(chain(*snapshot.replicas.values()))
    for pool in snapshot.pools.values():
        if not isinstance(pool.actuator, TritonActuator):
            continue
        for server in pool.actuator.servers:
            own = [one for one in replicas if (one.pool, one.place) == (pool.name, server.http)]
            taken_mib = sum_mib(own, deployments, snapshot.scaling)
            yield ServerRow(
                pool.name,
                server.http,
                tuple(one.deployment for one in own if one.state == "ready"),
                tuple(one.deployment for one in own if one.state == "starting"),
                tuple(one.deployment for one in own if one.state in {"draining", "stopping", "failed"}),
                taken_mib if isfinite(taken_mib) else None,
                server.memory_mib,
            )
