"""Season: how a load goes over the day, from the days before. Pure."""

from __future__ import annotations

from typing import NamedTuple

DAY_S = 86_400.0
SLOT_S = 600.0
SLOTS = int(DAY_S / SLOT_S)
OF_TODAY = 0.5
"""Part that the latest day has in the mean of days."""
MOST_TIMES = 3.0
"""By no more does the time of day change a forecast."""


class Season(NamedTuple):
    """Mean loads by ten minutes of the day; None: not seen yet."""

    slots: tuple[float | None, ...]
    slot: int = 0
    total: float = 0.0
    loads: int = 0


NO_SEASON = Season((None,) * SLOTS)


def seen_in(season: Season, at_s: float, load: float) -> Season:
    """With one more load; a slot counts once it is over."""
    slot = int(at_s % DAY_S / SLOT_S)
    if slot == season.slot:
        return season._replace(total=season.total + load, loads=season.loads + 1)
    slots = season.slots
    if season.loads:
        mean, before = season.total / season.loads, slots[season.slot]
        now = mean if before is None else before + OF_TODAY * (mean - before)
        slots = (*slots[: season.slot], now, *slots[season.slot + 1 :])
    return Season(slots, slot, load, 1)


def times(season: Season, now_s: float, ahead_s: float) -> float:
    """By what factor the load changes until then on other days; 1 where that is not known."""
    here, there = _at(season, now_s), _at(season, now_s + ahead_s)
    if here is None or there is None or here <= 0:
        return 1.0
    return min(MOST_TIMES, max(1 / MOST_TIMES, there / here))


def _at(season: Season, at_s: float) -> float | None:
    """Between the middles of slots, a straight line."""
    place = at_s % DAY_S / SLOT_S - 0.5
    first = int(place // 1)
    before, after = season.slots[first % SLOTS], season.slots[(first + 1) % SLOTS]
    if before is None or after is None:
        return None
    return before + (place - first) * (after - before)
