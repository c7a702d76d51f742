"""Load-test report: tables, a picture and words about what the figures leave out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.table import Table

from engine_builder.charts import Series, chart, shares
from engine_builder.loadtest.outcomes import FIGURES, Interval, fell_behind, figures, ratios
from engine_builder.loadtest.regression import Worse
from enginehouse.errors import CommandError
from enginehouse.loadtest_files import Result

_FEW = 100
"""Requests; below it a 99th percentile is hardly more than the slowest."""


def tables(results: Sequence[Result]) -> Iterator[Table]:
    """One for each rate: figures with 95 % intervals, and the ratio where there are two targets."""
    for place, level in enumerate(results[0].levels):
        goals = results[0].targets
        shown = Table(
            title=f"{level.rate:.3g} requests/s, {len(level.run.outcomes)} of them; "
            f"in time: TTFT {goals.ttft_s:g} s, ITL {goals.itl_s:g} s"
        )
        shown.add_column("")
        for one in results:
            shown.add_column(one.target, justify="right")
        found = [figures(one.levels[place].run, goals) for one in results]
        beside: dict[str, Interval] = {}
        if len(results) == 2:
            shown.add_column("second ÷ first", justify="right")
            beside = ratios(results[1].levels[place].run, results[0].levels[place].run, goals, paired=True)
        for name, figure in FIGURES.items():
            cells = [_shown(one[name], figure.factor) for one in found]
            if len(results) == 2:
                cells.append(_shown(beside[name], 1) if name in beside else "")
            shown.add_row(f"{figure.name}, {figure.unit}", *cells)
        yield shown


def remarks(results: Sequence[Result]) -> Iterator[str]:
    """What a reader of the figures should know."""
    yield f"sent by: {results[0].driver}; times count from when a request was due; in brackets: 95 %"
    for result in results:
        for level in result.levels:
            head = f"{result.target} at {level.rate:.3g}/s: "
            late, most_s = fell_behind(level.run)
            if late:
                yield f"{head}the client fell behind: {late} requests were sent up to {most_s:.2f} s late"
            errors = Counter(one.error for one in level.run.outcomes if one.error is not None)
            for error, count in errors.most_common(3):
                yield f"{head}{count} x {error}"
            if len(level.run.outcomes) < _FEW:
                yield f"{head}under {_FEW} requests: its 99th percentiles are hardly more than its slowest"


def check_answered(results: Sequence[Result]) -> None:
    """Raises CommandError where there was not one answer."""
    outcomes = (one for result in results for level in result.levels for one in level.run.outcomes)
    if all(one.error is not None for one in outcomes):
        raise CommandError("no request was answered", "the lines above say why")


def picture(results: Sequence[Result]) -> str:
    """Of several rates, goodput over the offered rate; of one, how times to first token are distributed."""
    goals = results[0].targets
    if len(results[0].levels) == 1:
        series = [
            shares(one.target, [1e3 * got.ttft_s for got in one.levels[0].run.outcomes if got.error is None])
            for one in results
        ]
        return chart("Time to first token", "ms", "% of answered requests", series)
    lines = [
        Series(
            one.target,
            [(level.rate, figures(level.run, goals)["goodput_per_s"].value) for level in one.levels],
        )
        for one in results
    ]
    title = f"Goodput: TTFT within {goals.ttft_s:g} s, ITL within {goals.itl_s:g} s"
    return chart(title, "offered requests/s", "requests/s in time", lines)


def told_regression(one: Worse, rate: float, most: float) -> str:
    """A line."""
    name = FIGURES[one.figure].name
    sure = "" if one.certain else "; may be chance: more requests would tell"
    by = (
        f"{100 * one.by:.1f} % of requests more"
        if one.figure == "error_rate"
        else f"{100 * one.by:.1f} % worse"
    )
    return f"{name} at {rate:.3g}/s: {by} (allowed {100 * most:g} %){sure}"


def _shown(one: Interval, factor: float) -> str:
    if math.isnan(one.value):
        return "-"
    value, low, high = (factor * each for each in one)
    return f"{value:.3g} [{low:.3g}–{high:.3g}]"  # noqa: RUF001
