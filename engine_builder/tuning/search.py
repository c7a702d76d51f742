"""Search: what to measure next. Pure: the same history gives the same trial, so a search resumes from it.

One knob after another, the others as the best so far has them; again from the first, until a round changes
nothing. Every setting is first measured under the load at which the best one did best, and then only under
loads at which it could still be better. That is bounded by what was seen of it: with more clients an engine's
requests per second grow at most in proportion, and the share that meets the targets does not grow; with fewer
clients it does not do more requests per second. Last, the most promising settings and the one that the search
began with are measured again for twice as long, since the best of many measurements is partly luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine_builder.tuning.space import Budget, Knob, Measured, Setting, Space, Trial

LEAST_GAIN = 0.03
"""Of goodput: what is not better by this is not better."""
SLACK = 0.1
"""By what a bound may be wrong, since measurements are."""
MOST_ROUNDS = 3
FINALISTS = 2
"""Settings that are measured again, beside the one at the start."""
FINAL_WEIGHT = 2


class Done(NamedTuple):
    """The search has ended."""

    reason: str
    best: Setting
    clients: int
    """The load at which it does best."""
    goodput: float
    """There."""
    confirmed: bool
    """It was measured again, beside the start; or it is the start."""


def next_trial(history: Sequence[Measured], space: Space, budget: Budget) -> Trial | Done:
    """What to measure next, or what was found."""
    seen = _Seen(history, space.loads)
    wanted = _explore(seen, space)
    if isinstance(wanted, Setting):
        best = wanted
        wanted = _finals(seen, space.start, best)
    if isinstance(wanted, Trial):
        over = budget.spent(list(history))
        if over is None:
            return wanted
        best = max(seen.settings(), key=seen.goodput, default=space.start)
        if seen.goodput(best) <= seen.goodput(space.start) * (1 + LEAST_GAIN):
            best = space.start
        return _done(seen, f"{over} are used up", best, confirmed=best == space.start)
    return _done(seen, _why(seen, wanted, space.start), wanted, confirmed=True)


def _why(seen: _Seen, won: Setting, start: Setting) -> str:
    if won != start:
        return "measured again, it is still the best"
    ahead = max(map(seen.explored, seen.settings()), default=0.0) > seen.explored(start) * (1 + LEAST_GAIN)
    again = "; what was ahead at first was not when it was measured again"
    return f"nothing else does better{again if ahead else ''}"


class _Seen:
    """What is known of settings."""

    def __init__(self, history: Iterable[Measured], loads: Sequence[int]) -> None:
        self._loads = loads
        self._by_setting: dict[Setting, list[Measured]] = {}
        for one in history:
            self._by_setting.setdefault(one.trial.setting, []).append(one)

    def settings(self) -> Iterable[Setting]:
        return self._by_setting

    def best(self, setting: Setting) -> Measured | None:
        """Its best measurement; one that was confirmed counts before all that were not."""
        run = [one for one in self._by_setting.get(setting, ()) if one.error is None]
        return max(run, key=lambda one: (one.trial.weight, one.goodput), default=None)

    def explored(self, setting: Setting) -> float:
        """The goodput by which it was compared with others, whatever was found when measured again."""
        run = [one for one in self._of(setting) if one.error is None]
        return max((one.goodput for one in run), default=0.0)

    def goodput(self, setting: Setting) -> float:
        best = self.best(setting)
        return best.goodput if best else 0.0

    def final(self, trial: Trial) -> Measured | None:
        return next((one for one in self._by_setting.get(trial.setting, ()) if one.trial == trial), None)

    def clients(self, setting: Setting) -> int:
        """The load at which it did best in the first measurements."""
        return max(self._of(setting), key=lambda one: one.goodput).trial.clients

    def next_load(self, setting: Setting, first: int, floor: float) -> int | None:
        """The next load at which it may do better than `floor`; None: none."""
        of = self._of(setting)
        if not of:
            return first
        if any(one.error is not None for one in of):
            return None
        floor = max(floor, *(one.goodput for one in of)) * (1 + LEAST_GAIN)
        tried = {one.trial.clients for one in of}
        left = [load for load in self._loads if load not in tried and _bound(of, load) > floor]
        place = {load: number for number, load in enumerate(self._loads)}
        return min(left, key=lambda load: (abs(place[load] - place[first]), -load), default=None)

    def _of(self, setting: Setting) -> list[Measured]:
        return [one for one in self._by_setting.get(setting, ()) if one.trial.weight == 1]


def _bound(of: Sequence[Measured], load: int) -> float:
    """The most goodput that a setting can have under a load, by what was seen of it under others."""
    return (1 + SLACK) * min(
        one.goodput * load / one.trial.clients if load > one.trial.clients else one.requests_per_s
        for one in of
    )


def _explore(seen: _Seen, space: Space) -> Trial | Setting:
    """The next trial of the rounds, or the best setting once they are over."""
    best = space.start
    load = seen.next_load(best, space.loads[0], 0.0)
    if load is not None:
        return Trial(best, load)
    for _ in range(MOST_ROUNDS):
        before = best
        for knob in space.knobs:
            found = _turn(seen, knob, best)
            if isinstance(found, Trial):
                return found
            best = found
        if best == before:
            break
    return best


def _turn(seen: _Seen, knob: Knob, best: Setting) -> Trial | Setting:
    """The next trial of one knob, or the best of its values."""
    first = seen.clients(best)
    for value in knob.values:
        setting = best.replaced(knob.name, value)
        if setting == best:
            continue
        load = seen.next_load(setting, first, seen.explored(best))
        if load is not None:
            return Trial(setting, load)
    others = [best.replaced(knob.name, value) for value in knob.values]
    found = max((best, *others), key=seen.explored)
    return found if seen.explored(found) > seen.explored(best) * (1 + LEAST_GAIN) else best


def _finals(seen: _Seen, start: Setting, best: Setting) -> Trial | Setting:
    """The next trial of the finals, or who has won."""
    if best == start:
        return start
    others = sorted((one for one in seen.settings() if one != start), key=seen.explored, reverse=True)
    worth = [one for one in others if seen.explored(one) > seen.explored(start) * (1 + LEAST_GAIN)]
    finals = [Trial(one, seen.clients(one), FINAL_WEIGHT) for one in (start, *worth[:FINALISTS])]
    for trial in finals:
        if seen.final(trial) is None:
            return trial
    results = {trial.setting: seen.final(trial) for trial in finals}
    won = max(results, key=lambda one: found.goodput if (found := results[one]) else 0.0)
    at_start = results[start]
    least = (at_start.goodput if at_start else 0.0) * (1 + LEAST_GAIN)
    found = results[won]
    return won if found is not None and found.goodput > least else start


def _done(seen: _Seen, reason: str, best: Setting, *, confirmed: bool) -> Done:
    found = seen.best(best)
    if found is None:
        return Done(reason, best, 0, 0.0, confirmed)
    return Done(reason, best, found.trial.clients, found.goodput, confirmed)
