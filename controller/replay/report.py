"""Report: comparisons as a table, CSV files and pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.table import Table

from controller.replay.comparison import KPA, ORACLE, OWN, STEP_S, Comparison
from controller.replay.traffic import Floats

WIDTH, HEIGHT = 1100, 320
LEFT, TOP, BOTTOM = 48, 46, 34
COLUMNS = (
    "traffic",
    "cold_start_s",
    "seed",
    "way",
    "replica_hours",
    "of_clairvoyant",
    "of_static",
    "attainment",
    "scale_ups",
    "starts",
)
_FONT = 'font-family="sans-serif" font-size="12"'
_COLOURS = {OWN: "#c2410c", ORACLE: "#16a34a", KPA: "#64748b"}


def printed(groups: Sequence[Sequence[Comparison]]) -> Table:
    """A line for every way; a group has the same traffic and engines with several seeds."""
    table = Table(title="GPU-hours, requests in time, and how often fleets grew; means over seeds")
    for head in ("traffic", "cold start s"):
        table.add_column(head)
    table.add_column("way")
    for head in ("÷ clairvoyant", "% of static", "in time %", "worst seed %", "scale-ups", "starts"):
        table.add_column(head, justify="right")
    for group in groups:
        first = group[0]
        for place, name in enumerate(first.ways):
            runs = [one.ways[name] for one in group]
            table.add_row(
                first.traffic if place == 0 else "",
                f"{first.engines.cold_start_s}" if place == 0 else "",
                name,
                f"{fmean(one.of_oracle(name) for one in group):.3f}",
                f"{100 * fmean(one.of_static(name) for one in group):.1f}",
                f"{100 * fmean(one.attainment for one in runs):.2f}",
                f"{100 * min(one.attainment for one in runs):.2f}",
                f"{fmean(one.ups for one in runs):,.0f}",
                f"{fmean(one.starts for one in runs):,.0f}",
                style="bold" if name == OWN else None,
                end_section=place == len(first.ways) - 1,
            )
    return table


def write(comparisons: Sequence[Comparison], directory: Path) -> None:
    """`scaling.csv` with every run; timelines by traffic and cold start (csv, svg). Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    write_runs(comparisons, directory / "scaling.csv")
    drawn = set()
    for one in comparisons:
        name = f"timeline-{one.traffic}-{one.engines.cold_start_s}s"
        if name not in drawn:
            drawn.add(name)
            write_timeline(one, directory / f"{name}.csv")
            (directory / f"{name}.svg").write_text(picture(one), encoding="utf-8")


def write_runs(comparisons: Sequence[Comparison], path: Path) -> None:
    """A line for every way, traffic, cold start and seed. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in comparisons:
            for name, run in one.ways.items():
                rows.writerow(
                    (
                        one.traffic,
                        one.engines.cold_start_s,
                        one.seed,
                        name,
                        f"{run.replica_s / 3600:.2f}",
                        f"{one.of_oracle(name):.4f}",
                        f"{one.of_static(name):.4f}",
                        f"{run.attainment:.5f}",
                        run.ups,
                        run.starts,
                    )
                )


def write_timeline(comparison: Comparison, path: Path) -> None:
    """By minute: the load in replicas, and what each way had up, in the mean. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["second", "load", *comparison.ways])
        columns = [comparison.load, *(way.up for way in comparison.ways.values())]
        for place, row in enumerate(zip(*columns, strict=True)):
            rows.writerow([place * STEP_S, *(f"{value:.2f}" for value in row)])


def picture(comparison: Comparison) -> str:
    """Load, and replicas of the own way, the clairvoyant and Knative's, over time, as SVG."""
    load = comparison.load
    lines = {name: comparison.ways[name].up for name in _COLOURS}
    most = 1.05 * max(1.0, *(float(one.max()) for one in lines.values()), float(load.max()))
    wide, high = WIDTH - LEFT - 12, HEIGHT - TOP - BOTTOM
    across = LEFT + wide * np.arange(len(load)) / max(1, len(load) - 1)

    def path(values: Floats) -> str:
        down = TOP + high * (1 - values / most)
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))

    title = f"{comparison.traffic}, cold start {comparison.engines.cold_start_s} s: replicas over hours"
    floor = TOP + high
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>',
        f'<polygon points="{LEFT},{floor} {path(load)} {LEFT + wide},{floor}" fill="#dbeafe"/>',
    ]
    for place, (name, values) in enumerate(lines.items()):
        run = comparison.ways[name]
        met = f"{100 * run.attainment:.2f} % in time"
        text = f"{name} ({comparison.of_oracle(name):.2f} x, {met}, {run.ups} ups)"
        left = LEFT + place * 345
        colour, width = _COLOURS[name], 1.6 if name == OWN else 1
        parts += [
            f'<polyline points="{path(values)}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
            f'<text x="{left}" y="36" fill="{colour}">{escape(text)}</text>',
        ]
    hours = len(load) * STEP_S / 3600
    every = max(0.25, round(hours / 12)) if hours >= 3 else 0.25
    for tick in np.arange(0, hours + 1e-9, every):
        x = LEFT + wide * tick / hours
        parts.append(f'<text x="{x:.0f}" y="{floor + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in np.linspace(0, most, 5)[1:]:
        y = TOP + high * (1 - tick / most)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:.0f}</text>')
    return "\n".join([*parts, "</svg>", ""])
