"""Panels: what a dashboard shows, and the expressions that are asked of Prometheus for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CHOSEN = 'model=~"$model", profile=~"$profile"'
OF_MODEL = 'model=~"$model"'


@dataclass(frozen=True)
class Row:
    """A heading over the panels that follow."""

    title: str


@dataclass(frozen=True)
class Panel:
    """One panel: expressions with the legend of each."""

    title: str
    lines: Sequence[tuple[str, str]]
    unit: str = "short"
    about: str = ""
    quiet: str = ""
    """Why there may be nothing to show, which then stands there; empty: there always is something."""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


def stat(title: str, expression: str, unit: str = "short", about: str = "", quiet: str = "") -> Panel:
    """One number."""
    return Panel(title, [(expression, "")], unit, about, quiet, kind="stat", width=4)


def rate(metric: str, by: str, labels: str = "") -> str:
    """Sum of a counter's rate."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def some(metric: str, by: str, labels: str = "") -> str:
    """The same, without what did not happen: of many values of a label, few ever do."""
    return f"{rate(metric, by, labels)} > 0"


def quantile(share: float, metric: str, by: str = "model", labels: str = CHOSEN) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {by}' if by else 'le', labels)})"


def ratio(metric: str, of: str, labels: str = CHOSEN) -> str:
    """A counter's rate for each unit of another's; 0 where only the other has been counted yet."""
    part, whole = (f"sum(rate({name}{{{labels}}}[$__rate_interval]))" for name in (metric, of))
    return f"({part} or {whole} * 0) / {whole}"


def newest(metric: str, by: str = "deployment", labels: str = OF_MODEL) -> str:
    """Of what every controller tells alike."""
    return f"max by ({by}) ({metric}{{{labels}}})"
