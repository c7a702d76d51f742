"""Outcomes: what became of the requests of a load test, as figures with intervals. Pure.

Times count from when a request was to be sent, not from when it was: a client that waits for a slow server
before it sends the next one would leave out just the time that users wait (coordinated omission).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 20
"""Parts of a run that are drawn for intervals: requests near each other in time are slow together."""
DRAWS = 400
_CELLS = 1_000_000
"""Requests that are looked at together, to bound memory."""
_SEED = 1
_FIRST = 5
"""A fifth of the requests tells how long answers take before others pile up."""
LATE_S = 0.05
"""What is sent later than this was not sent in time."""


class Outcome(NamedTuple):
    """One request. Times in seconds from its intended time; none where there is an `error`."""

    at_s: float
    """Its intended time, from the beginning."""
    late_s: float
    """How much later it was sent."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft_s: float = 0.0
    took_s: float = 0.0
    error: str | None = None

    @property
    def itl_s(self) -> float:
        """Mean time between two of its tokens."""
        return (self.took_s - self.ttft_s) / max(1, self.output_tokens - 1)


class Targets(NamedTuple):
    """What a request is to get, for goodput."""

    ttft_s: float
    itl_s: float


class Run(NamedTuple):
    """All of one target at one rate, in the order of their intended times."""

    outcomes: Sequence[Outcome]
    span_s: float
    """In which they were answered; see `run`."""


def run(outcomes: Iterable[Outcome], seconds: float) -> Run:
    """Requests that were due within so many seconds.

    A server that keeps up answers the last ones as long after their time as the first ones, which is not time
    that it needed more; what is beyond that is.
    """
    ordered = sorted(outcomes)
    took = [one.took_s for one in ordered if one.error is None]
    usual_s = max(took[: 1 + len(took) // _FIRST], default=0.0)
    end_s = max((one.at_s + one.took_s for one in ordered), default=0.0)
    return Run(ordered, max(seconds, end_s - usual_s))


class Figure(NamedTuple):
    """How one figure is told."""

    name: str
    unit: str
    factor: float
    """From seconds and shares to the unit."""
    more_is_better: bool


FIGURES = MappingProxyType(
    {
        "ttft_p50_s": Figure("TTFT p50", "ms", 1e3, False),
        "ttft_p90_s": Figure("TTFT p90", "ms", 1e3, False),
        "ttft_p99_s": Figure("TTFT p99", "ms", 1e3, False),
        "itl_p50_s": Figure("ITL p50", "ms", 1e3, False),
        "itl_p99_s": Figure("ITL p99", "ms", 1e3, False),
        "e2e_p50_s": Figure("E2E p50", "s", 1, False),
        "e2e_p99_s": Figure("E2E p99", "s", 1, False),
        "requests_per_s": Figure("answered", "requests/s", 1, True),
        "output_tokens_per_s": Figure("output", "tokens/s", 1, True),
        "goodput_per_s": Figure("goodput", "requests/s", 1, True),
        "error_rate": Figure("errors", "%", 100, False),
    }
)


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def figures(run: Run, targets: Targets) -> dict[str, Interval]:
    """Every figure of FIGURES; times are of answered requests and NaN without any."""
    table = _table(run, targets)
    exact = _values(table[None], run.span_s)[0]
    return _intervals(exact, _drawn(table, run.span_s, _SEED))


def ratios(of: Run, to: Run, targets: Targets, *, paired: bool) -> dict[str, Interval]:
    """Each figure of one run over the other's, but for errors, which may be none.

    `paired`: both were measured in turns, so that the same parts of the time belong together.
    """
    ones, others = _table(of, targets), _table(to, targets)
    exact = _quotient(_values(ones[None], of.span_s), _values(others[None], to.span_s))[0]
    second = _drawn(others, to.span_s, _SEED if paired else _SEED + 1)
    found = _intervals(exact, _quotient(_drawn(ones, of.span_s, _SEED), second))
    del found["error_rate"]
    return found


def fell_behind(run: Run) -> tuple[int, float]:
    """How many requests the client sent too late, and by how much at most."""
    late = [one.late_s for one in run.outcomes if one.late_s > LATE_S]
    return len(late), max(late, default=0.0)


def _table(run: Run, targets: Targets) -> NDArray[np.float64]:
    """A row for each request: answered, met, TTFT, ITL, whole time, output tokens."""
    return np.array([_row(one, targets) for one in run.outcomes], dtype=float).reshape(-1, 6)


def _row(one: Outcome, targets: Targets) -> tuple[float, ...]:
    if one.error is not None:
        return (0, 0, np.nan, np.nan, np.nan, 0)
    met = one.ttft_s <= targets.ttft_s and one.itl_s <= targets.itl_s
    return (1, met, one.ttft_s, one.itl_s, one.took_s, one.output_tokens)


def _values(tables: NDArray[np.float64], span_s: float) -> NDArray[np.float64]:
    """Of each table, in the order of FIGURES."""
    if not tables.shape[1]:
        return np.full((len(tables), len(FIGURES)), np.nan)
    per_s = tables.shape[1] / span_s
    ttft, itl, took = (_quantiles(tables[:, :, column]) for column in (2, 3, 4))
    answered, met, tokens = (tables[:, :, column].mean(axis=1) for column in (0, 1, 5))
    rates = (per_s * answered, per_s * tokens, per_s * met, 1 - answered)
    return np.stack([*ttft, itl[0], itl[2], took[0], took[2], *rates], axis=1)


def _quantiles(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The median, the 90th and the 99th percentile of each row's numbers."""
    ordered = np.sort(values, axis=1)  # what is no number comes last
    last = np.maximum(0, np.count_nonzero(~np.isnan(ordered), axis=1) - 1)
    found = []
    for share in (0.5, 0.9, 0.99):
        place = share * last
        below = place.astype(int)
        above = np.minimum(below + 1, last)
        low, high = (np.take_along_axis(ordered, at[:, None], axis=1)[:, 0] for at in (below, above))
        found.append(low + (place - below) * (high - low))
    return found


def _drawn(table: NDArray[np.float64], span_s: float, seed: int) -> NDArray[np.float64]:
    """The figures of runs that might have been: blocks of this one, drawn with replacement."""
    length = len(table)
    if not length:
        return np.full((1, len(FIGURES)), np.nan)
    within = np.arange(-(-length // BLOCKS))
    starts = (np.random.default_rng(seed).random((DRAWS, BLOCKS, 1)) * length).astype(int)
    picks = ((starts + within) % length).reshape(DRAWS, -1)[:, :length]
    few = max(1, _CELLS // length)
    return np.concatenate([_values(table[picks[part : part + few]], span_s) for part in range(0, DRAWS, few)])


def _intervals(exact: NDArray[np.float64], drawn: NDArray[np.float64]) -> dict[str, Interval]:
    found = {}
    for column, name in enumerate(FIGURES):
        numbers = drawn[:, column][~np.isnan(drawn[:, column])]
        ends = np.quantile(numbers, (0.025, 0.975)) if len(numbers) else (np.nan, np.nan)
        found[name] = Interval(float(exact[column]), float(ends[0]), float(ends[1]))
    return found


def _quotient(of: NDArray[np.float64], to: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(to == 0, np.nan, of / to)
