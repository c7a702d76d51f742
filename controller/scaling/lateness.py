"""Lateness: what part of requests waits too long for so many replicas, and how many are worth it. Pure.

A group of replicas is taken for one server that works off a queue: work comes at a rate and with a variance
and waits when there is more than the replicas do. The part of work that finds more than it may wait for falls
with the room there is as `exp(-2 * wait * room / spread * capacity / load)`, as in heavy traffic (diffusion;
Kingman 1962).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf

from controller.scaling.trend import Point

MOST = 10_000
"""Replicas, where counting ends."""


def late(replicas: float, load: float, spread: float, wait_s: float) -> float:
    """Part of the work that waits longer than `wait_s`."""
    if load <= 0:
        return 0.0
    if load >= replicas:
        return 1.0
    return exp(-2 * wait_s * (replicas - load) * replicas / (spread * load))


def mean_late(replicas: float, points: Sequence[Point], spread: float, wait_s: float) -> float:
    """Over loads that there may be."""
    scale = -2 * wait_s * replicas / spread
    total = 0.0
    for load, weight in points:  # `late`, written out: a decision asks for it a hundred times
        if load >= replicas:
            total += weight
        elif load > 0:
            total += weight * exp(scale * (replicas - load) / load)
    return total


def worth(
    points: Sequence[Point], spread: float, wait_s: float, price: float, fill: float = 1.0, least: int = 1
) -> int:
    """The number of replicas, `least` or more, that with the lateness left beside them costs least.

    `price`: how many times its own work it is worth that a request is in time. `fill`: what one replica does
    beside what its card says.
    """
    load = sum([one.weight * one.load for one in points])
    if load <= 0:
        return 0
    replicas = best = max(1, least, int(load / fill))
    cheapest = inf
    while replicas < MOST:
        lateness = price * load * mean_late(replicas * fill, points, spread, wait_s)
        if replicas + lateness < cheapest:
            best, cheapest = replicas, replicas + lateness
        if replicas + 1 >= cheapest:
            break
        replicas += 1
    return best
