"""Fill: what a replica does beside what its card says, learned while it had all it could do. Pure."""

from __future__ import annotations

from typing import NamedTuple

PERIOD_S = 30.0
"""A backlog has to last for so long before what was done meanwhile counts."""
REMEMBER = 0.3
"""What one such period adds to the mean."""
BOUNDS = (0.25, 4.0)


class Fill(NamedTuple):
    """Learned so far, and the period under way."""

    part: float = 1.0
    since_s: float | None = None
    """When the present backlog was first seen."""
    arrived: float = 0.0
    """Work that has come since then."""
    backlog: float = 0.0
    """What waited then."""
    ready: int = 0


def filled(fill: Fill, now_s: float, arrived: float, backlog: float, ready: int, wait_s: float) -> Fill:
    """With one more look. Only replicas that were ready all the time tell anything."""
    saturated = ready > 0 and backlog > wait_s * ready * fill.part
    if not saturated:
        return Fill(fill.part)
    if fill.since_s is None or ready != fill.ready:
        return Fill(fill.part, now_s, 0.0, backlog, ready)
    came = fill.arrived + arrived
    span_s = now_s - fill.since_s
    if span_s < PERIOD_S:
        return fill._replace(arrived=came)
    done = (came + fill.backlog - backlog) / (span_s * ready)
    part = fill.part + REMEMBER * (done - fill.part)
    return Fill(min(max(part, BOUNDS[0]), BOUNDS[1]), now_s, 0.0, backlog, ready)
