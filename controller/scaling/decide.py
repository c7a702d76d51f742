"""Decide: how many replicas a group of deployments needs, from what is known of it now. Pure.

Loads are in replicas: 1.0 is what keeps one replica busy, as far as its targets allow. What has to be kept
from one decision to the next is a value, too: `Memory`.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

STALE_S = 10.0
"""Reports that are older say nothing of now: gateways report every second, also when they saw nothing."""
STABLE_S = 60.0
SURGE_S = 6.0
"""Windows over which arrivals are averaged, as Knative's autoscaler has them."""
SURGE_FACTOR = 2.0
"""A surge counts once its rate needs so many times what is ready."""
FILL = 0.75
"""Share of a replica's capacity that is planned to be used."""
CATCH_UP_S = 30.0
"""In which a backlog is to be worked off."""
HOLD_S = 300.0
"""Replicas leave when they have not been needed for so long."""


class Seen(NamedTuple):
    """What is known of a group's load now."""

    age_s: float | None
    """Of the oldest report; None: nobody has told anything."""
    arrived: float | None = None
    """Work that has come since the last look, in replica-seconds; None: not known."""
    backlog: float = 0.0
    """Work that waits at gateways, in replica-seconds."""
    busy: float = 0.0
    """Replicas that requests in flight would fill."""
    requests: int = 0
    """Waiting or in flight."""
    held: int = 0
    """Requests that nothing can serve, since no replica is up."""


class Limits(NamedTuple):
    """What operators and the group's engines set."""

    least: int
    most: int
    idle_s: float
    cold_start_s: float


class Memory(NamedTuple):
    """What a decision leaves for the next one."""

    points: tuple[tuple[float, float], ...] = ()
    """Work by the time of its look."""
    needs: tuple[tuple[float, int], ...] = ()
    """Replicas needed lately; none is below a later one."""
    used_s: float | None = None
    """When there was a request last."""
    wanted: int | None = None


class Decision(NamedTuple):
    """How many, and why; `rate` is the load that it goes by."""

    replicas: int
    reason: str
    rate: float = 0.0


def decide(now_s: float, seen: Seen, up: int, limits: Limits, memory: Memory) -> tuple[Decision, Memory]:
    """The number of replicas from now on. `up`: those that are ready or on their way.

    Never fewer than `up` while reports are stale or missing; never none unless nobody has asked for
    `idle_s`.
    """
    if seen.age_s is None or seen.age_s > STALE_S or seen.arrived is None:
        return _blind(seen, up, limits), memory._replace(points=())
    points = (*(one for one in memory.points if one[0] > now_s - STABLE_S), (now_s, seen.arrived))
    used_s = now_s if seen.requests or seen.arrived or memory.used_s is None else memory.used_s
    stable, surge = _rate(points, now_s, STABLE_S), _rate(points, now_s, SURGE_S)
    surging = surge / FILL >= SURGE_FACTOR * max(1, up)
    rate = max(stable, seen.busy, surge if surging else 0.0)
    need = _bounded(ceil(rate / FILL + seen.backlog / CATCH_UP_S), limits)
    if need == 0 and (seen.requests or now_s - used_s < limits.idle_s):
        need = min(1, up) if not seen.requests else 1
    needs = (*(one for one in memory.needs if one[1] > need and one[0] > now_s - HOLD_S), (now_s, need))
    replicas = max(need, min(_bounded(up, limits), needs[0][1]))
    if need == 0 and now_s - used_s >= limits.idle_s:
        replicas = need
    reason = _reason(replicas, need, up, rate, seen, limits)
    return Decision(replicas, reason, rate), Memory(points, needs, used_s, replicas)


def _blind(seen: Seen, up: int, limits: Limits) -> Decision:
    """Hold what there is."""
    why = "no gateway has reported" if seen.age_s is None else "reports have just begun"
    if seen.age_s is not None and seen.age_s > STALE_S:
        why = f"the last report is {seen.age_s:.0f} s old"
    return Decision(_bounded(up, limits), f"{why}: what there is stays")


def _rate(points: tuple[tuple[float, float], ...], now_s: float, window_s: float) -> float:
    """Mean load over the window, or since the first look, but over a surge's window at least."""
    since = [one for one in points if one[0] > now_s - window_s]
    span_s = max(SURGE_S, min(window_s, now_s - points[0][0]))
    return sum(work for _, work in since) / span_s


def _bounded(replicas: int, limits: Limits) -> int:
    return min(max(replicas, limits.least), limits.most)


def _reason(replicas: int, need: int, up: int, rate: float, seen: Seen, limits: Limits) -> str:
    load = f"load for {rate:.2f} replicas at {FILL:.0%}"
    if seen.held and not up:
        return f"{seen.held} requests are held, none is up"
    if replicas == 0:
        return f"nobody has asked for {limits.idle_s:g} s"
    if replicas > need:
        return f"{load} needs {need}, but more were needed within {HOLD_S:g} s"
    if replicas == limits.most:
        return f"{load}; the most allowed"
    if replicas == limits.least:
        return f"{load}; the least allowed"
    if seen.backlog > 1:
        return f"{load}, and {seen.backlog:.0f} replica-seconds of work wait"
    return load
