"""Outliers: endpoints so much worse than their peers that they are left alone for a while. Pure.

A breaker sees failures in a row. What it cannot see is an endpoint that answers, but late, or that fails
every other time: only its peers tell that this is not how it has to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from router.config import OutlierConfig

_NEVER = float("inf")
_MARGIN = 0.3
"""How far an error rate must be above the peers': when all fail, it is not the endpoint."""


class Sample(NamedTuple):
    """What was lately seen of one endpoint; None: too little."""

    name: str
    pace_s: float | None = None
    """Median seconds to a first token per token of work; an attempt that still waits counts by its age."""
    proven_pace_s: float | None = None
    """The same of first tokens that came: what peers are measured by."""
    work: float = 0.0
    """Tokens of work that a typical one of its attempts meant."""
    error_rate: float | None = None


class Suspect(NamedTuple):
    """An endpoint that should be left alone."""

    name: str
    reason: str
    """`slow` or `failing`, with by how much."""
    badness: float


class Leave(NamedTuple):
    """For how long an endpoint is left alone."""

    until_s: float
    times: int
    """In a row; each is twice as long as the one before."""
    reason: str


def suspects(samples: Sequence[Sample], config: OutlierConfig) -> list[Suspect]:
    """Who is far beyond the median of its peers, worst first."""
    found = []
    fastest_s = min((one.proven_pace_s for one in samples if one.proven_pace_s is not None), default=_NEVER)
    for sample in samples:
        late = sample.pace_s is not None and sample.pace_s > config.slow_factor * fastest_s
        fails = sample.error_rate is not None and sample.error_rate >= config.error_rate
        if not late and not fails:  # nearly all of them; their peers need no look
            continue
        peers = [peer for peer in samples if peer is not sample]
        suspect = _slow(sample, peers, config) or _failing(sample, peers, config)
        if suspect is not None:
            found.append(suspect)
    return sorted(found, key=lambda suspect: -suspect.badness)


def room(endpoints: int, left: int, config: OutlierConfig) -> int:
    """How many more of a group of `endpoints` may be left alone, of which `left` are already."""
    if endpoints < 2 or config.max_share == 0:
        return 0
    most = min(endpoints - 1, max(1, int(config.max_share * endpoints)))
    return max(0, most - left)


def leave(last: Leave | None, now_s: float, reason: str, config: OutlierConfig) -> Leave:
    """Leave an endpoint alone from now on; `last`: the last time, if there was one.

    One that was well for as long as it may at most be left alone begins anew.
    """
    again = last is not None and now_s < last.until_s + config.max_s
    times = last.times + 1 if again and last is not None else 1
    return Leave(now_s + min(config.max_s, config.base_s * 2.0 ** min(times - 1, 30)), times, reason)


def middle(values: Sequence[float]) -> float:
    """The median, the lower of two; `statistics.median` costs a sweep over many endpoints too much."""
    return sorted(values)[(len(values) - 1) // 2]


def _slow(sample: Sample, peers: Sequence[Sample], config: OutlierConfig) -> Suspect | None:
    paces = [peer.proven_pace_s for peer in peers if peer.proven_pace_s is not None]
    if sample.pace_s is None or not paces:
        return None
    usual_s = middle(paces)
    if sample.pace_s <= config.slow_factor * usual_s:
        return None
    if (sample.pace_s - usual_s) * sample.work < config.min_excess_s:
        return None
    times = sample.pace_s / usual_s if usual_s > 0 else _NEVER
    return Suspect(sample.name, f"slow: {times:.1f} times its peers' time to first token", times)


def _failing(sample: Sample, peers: Sequence[Sample], config: OutlierConfig) -> Suspect | None:
    if sample.error_rate is None or sample.error_rate < config.error_rate:
        return None
    rates = [peer.error_rate for peer in peers if peer.error_rate is not None]
    if not rates or sample.error_rate < middle(rates) + _MARGIN:
        return None
    return Suspect(sample.name, f"failing: {sample.error_rate:.0%} of its attempts", 100 * sample.error_rate)
