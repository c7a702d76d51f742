"""Pareto: which measurements no other one beats in both latency and throughput, and their picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine_builder.charts import Series, chart
from engine_builder.tuning.space import Measured, Setting


def front(history: Iterable[Measured]) -> list[Measured]:
    """Those than which none has both more output tokens per second and a shorter time between tokens.

    From the shortest time on; of a trial that was measured twice, the longer measurement counts.
    """
    by_trial: dict[tuple[Setting, int], Measured] = {}
    for one in history:
        key = one.trial.setting, one.trial.clients
        known = by_trial.get(key)
        if one.error is None and (known is None or one.trial.weight > known.trial.weight):
            by_trial[key] = one
    best: list[Measured] = []
    for one in sorted(by_trial.values(), key=lambda one: (one.itl_s, -one.output_tokens_per_s)):
        if not best or one.output_tokens_per_s > best[-1].output_tokens_per_s:
            best.append(one)
    return best


def picture(history: Sequence[Measured], start: Setting, title: str) -> str:
    """Throughput over the time between tokens: how it was set, other settings, and the front; as SVG."""
    run = [one for one in history if one.error is None]
    series = [
        _points("as it was", [one for one in run if one.trial.setting == start]),
        _points("other settings", [one for one in run if one.trial.setting != start]),
        _points("nothing better in both", front(run))._replace(line=True),
    ]
    return chart(title, "median time between tokens, ms", "output tokens/s of one replica", series)


def _points(name: str, ones: Sequence[Measured]) -> Series:
    return Series(
        name,
        [(1e3 * one.itl_s, one.output_tokens_per_s) for one in ones],
        line=False,
        notes=[
            f"{one.trial.setting}; {one.trial.clients} clients; goodput {one.goodput:.3g}/s" for one in ones
        ],
    )
