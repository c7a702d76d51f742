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


_IN_A_ROW = 2
"""First tokens in a row that are enough where they are far too late: one alone is no habit."""


class Timed(NamedTuple):
    """One attempt's first token."""

    began_s: float
    came_s: float | None
    """None: it is still waited for, and counts by its age."""
    pace_s: float
    """Seconds per token of work."""
    work: float
    """Tokens of work that were ahead when the attempt began, its own included."""


class Late(NamedTuple):
    """First tokens of one endpoint in a row that were far too late."""

    in_a_row: int
    began_s: float
    """When the first of those attempts began."""


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
    attempts: Sequence[Timed] = ()
    """The latest, in order; of those that still wait only who is later than usual."""
    told: Sequence[Late] = ()
    """What other gateway processes saw of it."""
    well_s: float = -_NEVER
    """Since when it is judged anew: what began before does not count."""


class Suspect(NamedTuple):
    """An endpoint that should be left alone."""

    name: str
    reason: str
    """`slow` or `failing`, with by how much."""
    badness: float
    late: Late | None = None
    """What other gateway processes are to be told of it: what was seen here, not what they told."""


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
        latest_is_late = sample.attempts and sample.attempts[-1].pace_s > config.sure_factor * fastest_s
        if not (late or fails or latest_is_late or sample.told):  # nearly all of them; peers need no look
            continue
        peers = [peer for peer in samples if peer is not sample]
        suspect = (
            _slow(sample, peers, config)
            or _slow_in_a_row(sample, peers, config)
            or _failing(sample, peers, config)
        )
        if suspect is not None:
            found.append(suspect)
    return sorted(found, key=lambda suspect: -suspect.badness)


def late_in_a_row(
    sample: Sample, samples: Sequence[Sample], config: OutlierConfig, factor: float | None = None
) -> Late | None:
    """First tokens in a row of `sample` that were far later than its peers'; None where there are none.

    `factor`: by how many times, if not by the `sure_factor`.

    In a row: of attempts that began after the last one whose first token was in time. Requests that are
    stuck while later ones are served say nothing of their endpoint.
    """
    usual_s = _usual_s([peer for peer in samples if peer is not sample])
    if usual_s is None:
        return None
    begun = [
        one.began_s
        for one in sample.attempts
        if one.began_s > _well_s(sample, usual_s, config)
        and _is_late(one, usual_s, factor or config.sure_factor, config)
    ]
    return Late(len(begun), min(begun)) if begun else None


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
    usual_s = _usual_s(peers)
    if sample.pace_s is None or usual_s is None:
        return None
    if sample.pace_s <= config.slow_factor * usual_s:
        return None
    if (sample.pace_s - usual_s) * sample.work < config.min_excess_s:
        return None
    times = sample.pace_s / usual_s if usual_s > 0 else _NEVER
    seen = late_in_a_row(sample, [sample, *peers], config, config.slow_factor)
    told = None if seen is None else seen._replace(in_a_row=max(_IN_A_ROW, seen.in_a_row))
    return Suspect(sample.name, f"slow: {times:.1f} times its peers' time to first token", times, told)


def _slow_in_a_row(sample: Sample, peers: Sequence[Sample], config: OutlierConfig) -> Suspect | None:
    """Also by what other gateway processes saw, unless an attempt went well here that began after theirs."""
    usual_s = _usual_s(peers)
    if usual_s is None:
        return None
    well_s = _well_s(sample, usual_s, config)
    own = late_in_a_row(sample, [sample, *peers], config)
    count = sum(one.in_a_row for one in sample.told if one.began_s > well_s) + (own.in_a_row if own else 0)
    if count < _IN_A_ROW:
        return None
    reason = f"slow: {count} first tokens in a row far later than its peers'"
    return Suspect(sample.name, reason, config.sure_factor, own)


def _usual_s(peers: Sequence[Sample]) -> float | None:
    paces = [peer.proven_pace_s for peer in peers if peer.proven_pace_s is not None]
    return middle(paces) if paces else None


def _is_late(one: Timed, usual_s: float, factor: float, config: OutlierConfig) -> bool:
    return one.pace_s > factor * usual_s and (one.pace_s - usual_s) * one.work >= config.min_excess_s


def _well_s(sample: Sample, usual_s: float, config: OutlierConfig) -> float:
    """When the last attempt began at which it was as fast as its peers."""
    begun_s = [
        one.began_s
        for one in sample.attempts
        if one.came_s is not None and not _is_late(one, usual_s, config.slow_factor, config)
    ]
    return max(sample.well_s, *begun_s) if begun_s else sample.well_s


def _failing(sample: Sample, peers: Sequence[Sample], config: OutlierConfig) -> Suspect | None:
    if sample.error_rate is None or sample.error_rate < config.error_rate:
        return None
    rates = [peer.error_rate for peer in peers if peer.error_rate is not None]
    if not rates or sample.error_rate < middle(rates) + _MARGIN:
        return None
    return Suspect(sample.name, f"failing: {sample.error_rate:.0%} of its attempts", 100 * sample.error_rate)
