"""Report: what was measured, as tables, CSV files and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeVar

from rich.table import Table

from router.replay.flood import FloodRow
from router.replay.overload import OverloadRow
from router.replay.statistics import Interval, Summary, interval

_FONT = 'font-family="sans-serif" font-size="12"'
T = TypeVar("T")
_BAR_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH = 420, 18, 300


class Row(NamedTuple):
    """One setup's figures, one for each seed."""

    name: str
    capacities: Sequence[float]
    """SLO capacities in requests per second."""
    summaries: Sequence[Summary]
    """Of runs at the comparison's rate."""

    @property
    def capacity(self) -> Interval:
        """In requests per second."""
        return interval(self.capacities)

    @property
    def slowdown(self) -> Interval:
        """The 99th percentile's."""
        return interval([one.p99_slowdown for one in self.summaries])

    def mean_of(self, figure: Callable[[Summary], float]) -> Interval:
        """Of any figure of a summary."""
        return interval([figure(one) for one in self.summaries])


class Comparison(NamedTuple):
    """Setups side by side; the first row is the oracle's. Ratios are taken seed by seed."""

    rate: float
    """Requests per second of the runs behind the summaries."""
    rows: Sequence[Row]

    @property
    def oracle(self) -> Row:
        """What others are measured against."""
        return self.rows[0]

    def row(self, name: str) -> Row:
        """A setup's. Raises StopIteration for an unknown one."""
        return next(row for row in self.rows if row.name == name)

    def capacity_percent(self, row: Row) -> Interval:
        """Of the oracle's."""
        return _ratios(row.capacities, self.oracle.capacities, 100)

    def hits_percent(self, row: Row) -> Interval:
        """Of the oracle's."""
        return _ratios([one.hits for one in row.summaries], [one.hits for one in self.oracle.summaries], 100)

    def ttft_ratio(self, row: Row) -> Interval:
        """Mean time to first token beside the oracle's."""
        return _ratios(
            [one.mean_ttft_s for one in row.summaries], [one.mean_ttft_s for one in self.oracle.summaries], 1
        )


def _ratios(values: Sequence[float], references: Sequence[float], scale: float) -> Interval:
    return interval([scale * value / max(1e-9, one) for value, one in zip(values, references, strict=True)])


def printed(comparison: Comparison) -> Table:
    """For a terminal."""
    seeds = len(comparison.oracle.capacities)
    table = _table(
        f"SLO capacity, and the rest at {comparison.rate:.2f} requests/s; {_seeds(seeds)}",
        "setup",
        "capacity req/s",
        "% of oracle",
        "hits % of pooled",
        "TTFT ÷ oracle",
        "p99 slowdown",
        "SLO met %",
    )
    for row in comparison.rows:
        table.add_row(
            row.name,
            str(row.capacity),
            str(comparison.capacity_percent(row)),
            str(comparison.hits_percent(row)),
            str(comparison.ttft_ratio(row)),
            str(row.slowdown),
            str(row.mean_of(lambda one: 100 * one.met)),
        )
    return table


def printed_overloads(rows: Sequence[OverloadRow]) -> Table:
    """For a terminal: a line for every rate."""
    groups = _grouped(rows, lambda row: f"{row.rate:g}")
    table = _table(
        f"Overload, 30 % critical; {_seeds(_most(groups))}",
        "offered req/s",
        "goodput req/s",
        "tokens/s in time",
        "critical in time %",
        "longest tenth in time %",
        "refused",
    )
    for rate, group in groups.items():
        table.add_row(
            rate,
            str(interval([row.goodput for row in group])),
            f"{fmean(row.token_goodput for row in group):,.0f}",
            str(interval([100 * row.critical for row in group])),
            str(interval([100 * row.longest_decile for row in group])),
            f"{fmean(sum(row.refused.values()) for row in group):,.0f}",
        )
    return table


def printed_floods(rows: Sequence[FloodRow]) -> Table:
    """For a terminal: a line for every window and rate."""
    groups = _grouped(rows, lambda row: f"{row.window}, {row.rate:g} req/s")
    table = _table(
        f"Flood by one of eight tenants; {_seeds(_most(groups))}",
        "window per engine",
        "gap, tokens",
        "largest",
        "gap by FCFS",
        "victims' p99 TTFT s",
        "÷ alone",
        "throughput % of FCFS",
    )
    for setting, group in groups.items():
        table.add_row(
            setting,
            f"{fmean(row.gap for row in group):,.0f}",
            f"{max(row.gap for row in group):,.0f}",
            f"{fmean(row.gap_fcfs for row in group):,.0f}",
            str(interval([row.victims_p99_ttft_s for row in group])),
            str(interval([row.slowdown for row in group])),
            str(interval([100 * row.throughput for row in group])),
        )
    return table


def _table(title: str, first: str, *heads: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _seeds(seeds: int) -> str:
    return f"{seeds} seeds, ± half of the 95 % interval" if seeds > 1 else "1 seed"


def _grouped(rows: Sequence[T], key: Callable[[T], str]) -> Mapping[str, Sequence[T]]:
    groups: dict[str, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _most(groups: Mapping[str, Sequence[object]]) -> int:
    return max(len(group) for group in groups.values())


def write_rows(rows: Sequence[OverloadRow] | Sequence[FloodRow], path: Path) -> None:
    """A CSV file with a line for each run. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(rows[0]._fields)
        lines.writerows([_cell(one) for one in row] for row in rows)


def _cell(value: object) -> object:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={count}" for name, count in value.items())
    return value


def write(comparison: Comparison, directory: Path) -> None:
    """`replay.csv` with every seed's figures, and `replay.svg` with the capacities. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "replay.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["setup", "seed", "capacity_requests_per_s", "rate", *Summary._fields])
        for row in comparison.rows:
            for seed, (capacity, one) in enumerate(zip(row.capacities, row.summaries, strict=True), 1):
                rows.writerow([row.name, seed, capacity, comparison.rate, *one])
    (directory / "replay.svg").write_text(picture(comparison), encoding="utf-8")


def picture(comparison: Comparison) -> str:
    """Bars of SLO capacity with their intervals, as SVG."""
    most = max(fmean(row.capacities) for row in comparison.rows) * 1.1
    height = (_BAR_HEIGHT + 8) * len(comparison.rows) + 40
    width = _LABEL_WIDTH + _BAR_WIDTH + 80
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="8" y="20" font-weight="bold">SLO capacity, requests per second</text>',
    ]
    for place, row in enumerate(comparison.rows):
        mean, half = row.capacity
        y = 34 + place * (_BAR_HEIGHT + 8)
        middle = y + _BAR_HEIGHT / 2
        width_of = _BAR_WIDTH * mean / most
        end = _LABEL_WIDTH + width_of
        fill = "#999999" if place == 0 else "#3b6ea5"
        lines += [
            f'<text x="{_LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect x="{_LABEL_WIDTH}" y="{y}" width="{width_of:.1f}" height="{_BAR_HEIGHT}" fill="{fill}"/>',
            f'<text x="{end + 12:.1f}" y="{middle + 4}">{mean:.2f}</text>',
        ]
        if len(row.capacities) > 1:
            spread = _BAR_WIDTH * half / most
            lines.append(
                f'<line x1="{end - spread:.1f}" x2="{end + spread:.1f}" y1="{middle}" y2="{middle}" '
                'stroke="black" stroke-width="2"/>'
            )
    return "\n".join([*lines, "</svg>", ""])
