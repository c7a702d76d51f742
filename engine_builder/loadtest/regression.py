"""Regression: which figures of a run are worse than those kept of an earlier one. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from engine_builder.errors import BuilderError
from engine_builder.loadtest.outcomes import FIGURES, Interval, Run, Targets, figures, ratios

_ERRORS_LEAST = 0.01
"""Of requests: fewer new errors are not called a regression."""


class Worse(NamedTuple):
    """One figure that got worse."""

    figure: str
    by: float
    """As a share of what it was; of errors, in shares of the requests."""
    certain: bool
    """Chance does not explain it (95 %)."""


def share(text: str, option: str) -> float:
    """`10%` or `0.1`. Raises BuilderError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < 10:
        raise BuilderError(f"{option} {text!r} is not a share", f"write {option} 10% or {option} 0.1")
    return value


def worse(now: Run, before: Run, targets: Targets, most: float) -> list[Worse]:
    """Figures that are worse by more than `most`; a gate should fail on the certain ones."""
    found: list[Worse] = []
    for name, ratio in ratios(now, before, targets, paired=False).items():
        by, least = _worsening(ratio, FIGURES[name].more_is_better)
        if by > most:
            found.append(Worse(name, by, least > 0))
    new, old = (figures(run, targets)["error_rate"] for run in (now, before))
    if new.value - old.value > max(most * old.value, _ERRORS_LEAST):
        found.append(Worse("error_rate", new.value - old.value, new.low > old.high))
    return found


def _worsening(ratio: Interval, more_is_better: bool) -> tuple[float, float]:
    """By what share it is worse, and by what at least; what cannot be told is not worse."""
    if more_is_better:
        return 1 - ratio.value, 1 - ratio.high
    return ratio.value - 1, ratio.low - 1
