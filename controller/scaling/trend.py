"""Trend: where a load goes within the next minutes, from how it came so far. Pure.

Several simple forecasts run side by side, and count by how far off each was lately at just the distance that
matters: the time that a replica takes to come up. Loads are in replicas; work is in replica-seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign, exp, sqrt
from typing import NamedTuple

from controller.scaling.season import NO_SEASON, Season, seen_in, times

BUCKET_S = 10.0
"""Work is added up for so long before it counts: shorter ones tell of noise only."""
HARDLY_S = 3.0
"""A bucket that has lasted no longer tells nothing."""
SURE_SIGMAS = 2.0
MEMORIES_S = (30.0, 60.0, 120.0)
"""Of the forecasts: a level and a line with each, and one with the time of day."""
LEVELS = len(MEMORIES_S)
DAILY_MEMORY = 1
"""Which level the time of day goes by."""
FORGET = 0.01
"""What each bucket adds to mean errors and to the spread: the last quarter of an hour counts."""
SOON = 5
"""While fewer than `1 / FORGET` were seen, each adds its even share beside so many that are guessed."""
SETTLED = 18
"""Buckets after which enough is known for replicas to leave."""
CHOOSY = 6.0
"""How much less a forecast counts that is off by more."""
ACTUAL_BUCKETS = 3
"""Forecasts are compared with the mean of so many buckets."""
RESIDUAL_S = 30.0
RESIDUALS = 360
"""How often one is kept, and how many: three hours' together."""
PARTS = 9
"""Equal parts of the residuals that stand for all of them."""
FEW = PARTS
FIRST_RESIDUALS = (0.92, 0.96, 1.0, 1.04, 1.08)
"""Until there are a few."""
STEP_SIGMAS = 4.0
STEP_RATIO = 1.5
"""A bucket that is so far above what noise explains is a new load: what came before says nothing of it."""
RISES = ((0.15, 0.03), (0.3, 0.02), (0.6, 0.01))
"""By what part loads rise within ten minutes, and how often: what the last hours may have nothing of."""
RISE_S = 600.0
_RISING = sum(weight for _, weight in RISES)
NOTICE_S = 60.0
"""What passes before a rise shows."""


class Point(NamedTuple):
    """A load that there may be, and how likely."""

    load: float
    weight: float


class Line(NamedTuple):
    """A level that moves."""

    level: float
    slope: float


class Due(NamedTuple):
    """Forecasts for a time to come."""

    at_s: float
    each: tuple[float, ...]
    best: float


class Trend(NamedTuple):
    """What is remembered. `at_s` is the end of the last whole bucket."""

    at_s: float
    spread: float
    """Variance of the work of a second beside its mean, in replica-seconds: one request's work if they come
    at random."""
    seen: int = 0
    """Buckets so far."""
    part: float = 0.0
    buckets: tuple[float, ...] = ()
    """The latest loads."""
    levels: tuple[float, ...] = ()
    lines: tuple[Line, ...] = ()
    errors: tuple[float, ...] = (0.05,) * (2 * LEVELS + 1)
    due: tuple[Due, ...] = ()
    residuals: tuple[float, ...] = ()
    residual_s: float = 0.0
    """When the last one was kept."""
    ratios: tuple[float, ...] = FIRST_RESIDUALS
    """What they amount to."""
    season: Season = NO_SEASON

    @property
    def known(self) -> bool:
        """Whether a whole bucket has been seen."""
        return bool(self.levels)

    @property
    def settled(self) -> bool:
        """Whether enough has been seen for replicas to leave."""
        return self.seen >= SETTLED


def follow(trend: Trend, now_s: float, work: float, lead_s: float) -> Trend:
    """With the work that has come since the last call. `lead_s`: how far ahead forecasts are to be good."""
    whole = int((now_s - trend.at_s) / BUCKET_S)
    if whole < 1:
        return trend._replace(part=trend.part + work)
    load = (trend.part + work) / (whole * BUCKET_S)
    for _ in range(min(whole, 2 * ACTUAL_BUCKETS)):
        trend = _bucket(trend, trend.at_s + BUCKET_S, load, lead_s)
    return trend._replace(at_s=trend.at_s + BUCKET_S * max(0, whole - 2 * ACTUAL_BUCKETS), part=0.0)


def anew(trend: Trend, now_s: float) -> Trend:
    """Begun again after a time of which nothing is known; how good forecasts are and how days go stays."""
    return Trend(
        now_s,
        trend.spread,
        errors=trend.errors,
        residuals=trend.residuals,
        residual_s=trend.residual_s,
        ratios=trend.ratios,
        season=trend.season,
    )


def forecast(trend: Trend, ahead_s: float) -> list[Point]:
    """What the load may be then; their weights add up to 1."""
    best = expected(trend, ahead_s)
    scale = (ahead_s + NOTICE_S) / RISE_S
    each = (1 - _RISING) / len(trend.ratios)
    return [
        *[Point(best * ratio, each) for ratio in trend.ratios],
        *[Point(best * (1 + rise * scale), weight) for rise, weight in RISES],
    ]


def expected(trend: Trend, ahead_s: float) -> float:
    """The mean of the forecasts, the better ones weighing more."""
    return _blend(_each(trend, ahead_s), trend.errors)


def lately(trend: Trend, now_s: float) -> float:
    """What the load is now at least: by the bucket that is not full yet, less what may be noise."""
    load, span_s = expected(trend, 0.0), now_s - trend.at_s
    if span_s < HARDLY_S:
        return load
    noise = sqrt(trend.spread * load / span_s)
    return max(load, trend.part / span_s - SURE_SIGMAS * noise)


def _blend(each: Sequence[float], errors: Sequence[float]) -> float:
    least = max(1e-6, min(errors))
    weights = [exp(-CHOOSY * (error / least - 1)) for error in errors]
    return sum(w * one for w, one in zip(weights, each, strict=True)) / sum(weights)


def _each(trend: Trend, ahead_s: float) -> tuple[float, ...]:
    """Levels stay, lines go on, and the day goes as days went before."""
    season = times(trend.season, trend.at_s, ahead_s)
    return (
        *trend.levels,
        *(max(line.level + line.slope * ahead_s, 0.3 * line.level) for line in trend.lines),
        trend.levels[DAILY_MEMORY] * season,
    )


def _parts(residuals: Sequence[float]) -> tuple[float, ...]:
    if len(residuals) < FEW:
        return FIRST_RESIDUALS
    ordered = sorted(residuals)
    return tuple([ordered[int((part + 0.5) / PARTS * len(ordered))] for part in range(PARTS)])


def _bucket(trend: Trend, at_s: float, load: float, lead_s: float) -> Trend:
    if not trend.known or _is_step(trend, load):
        trend = trend._replace(
            levels=(load,) * LEVELS, lines=(Line(load, 0.0),) * LEVELS, due=(), buckets=(load,)
        )
    levels = tuple(
        level + _share(memory_s) * (load - level)
        for level, memory_s in zip(trend.levels, MEMORIES_S, strict=True)
    )
    lines = tuple(
        _moved(line, load, memory_s) for line, memory_s in zip(trend.lines, MEMORIES_S, strict=True)
    )
    trend = trend._replace(
        at_s=at_s,
        seen=trend.seen + 1,
        spread=_spread(trend, load),
        buckets=(*trend.buckets[1 - ACTUAL_BUCKETS :], load),
        levels=levels,
        lines=lines,
        season=seen_in(trend.season, at_s, load),
    )
    return _compared(trend, lead_s)


def _compared(trend: Trend, lead_s: float) -> Trend:
    """Forecasts that have fallen due are compared with what came, and new ones made."""
    errors, due, adds = trend.errors, trend.due, _adds(trend)
    ratio = None
    actual = sum(trend.buckets) / len(trend.buckets)
    while due and due[0].at_s <= trend.at_s:
        one, due = due[0], due[1:]
        if actual > 0:
            errors = tuple(
                [
                    error + adds * (min(1.0, abs(actual - made) / actual) - error)
                    for error, made in zip(errors, one.each, strict=True)
                ]
            )
        ratio = _off(actual, one.best, trend) if one.best > 0 else None
    each = _each(trend, lead_s)
    due = (*due, Due(trend.at_s + lead_s + ACTUAL_BUCKETS / 2 * BUCKET_S, each, _blend(each, errors)))
    if ratio is None or trend.at_s < trend.residual_s + RESIDUAL_S:
        return trend._replace(errors=errors, due=due)
    residuals = (*trend.residuals[1 - RESIDUALS :], ratio)
    return trend._replace(
        errors=errors, due=due, residuals=residuals, residual_s=trend.at_s, ratios=_parts(residuals)
    )


def _off(actual: float, best: float, trend: Trend) -> float:
    """The ratio of what came to what was forecast, without the part that clumps of requests explain.

    Those make no other load; the room that they need is in `lateness`, and would be counted twice.
    """
    off = actual / best - 1
    clumps = trend.spread / (best * len(trend.buckets) * BUCKET_S)
    return 1 + copysign(sqrt(max(0.0, off**2 - clumps)), off)


def _adds(trend: Trend) -> float:
    return max(FORGET, 1 / (trend.seen + SOON))


def _share(memory_s: float) -> float:
    return 1 - exp(-BUCKET_S / memory_s)


def _moved(line: Line, load: float, memory_s: float) -> Line:
    there = line.level + line.slope * BUCKET_S
    level = there + _share(memory_s) * (load - there)
    slope = line.slope + _share(2 * memory_s) * ((level - line.level) / BUCKET_S - line.slope)
    return Line(level, slope)


def _spread(trend: Trend, load: float) -> float:
    """By how much neighbouring buckets differ."""
    if not trend.buckets or load + trend.buckets[-1] <= 0:
        return trend.spread
    before = trend.buckets[-1]
    found = (load - before) ** 2 * BUCKET_S / (load + before)
    return trend.spread + _adds(trend) * (min(found, 20 * trend.spread) - trend.spread)


def _is_step(trend: Trend, load: float) -> bool:
    level = max(max(trend.levels), max(line.level for line in trend.lines))
    noise = sqrt(trend.spread * level / BUCKET_S)
    return load > STEP_RATIO * level and load > level + STEP_SIGMAS * noise and load > trend.spread / BUCKET_S
