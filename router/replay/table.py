"""What `make replay` prints: policies beside the pooled oracle, overload, a flood, and the bars of all three.

    python -m router.replay.table [--seeds 5] [--processes 2] [--out DIRECTORY]

The traces that come with this package, on engines of the default card. The last line is `RESULT {json}`, in
which `ok` says whether every bar is met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeVar

from rich.console import Console

from model_registry.knobs import Knobs
from router.replay.bar import Bar
from router.replay.flood import SETTINGS, FloodRow, flood
from router.replay.gateways import Exchange, Hold
from router.replay.overload import RATES, OverloadRow, overload
from router.replay.report import (
    Comparison,
    Row,
    printed,
    printed_floods,
    printed_overloads,
    write,
    write_rows,
)
from router.replay.setups import POOLED, Setup
from router.replay.statistics import Summary
from router.replay.workload import Workload, bundled

STALE = Exchange(gateways=4, period_s=1.0, loss=0.02)
GOSSIP = STALE._replace(hints=True, at_once=True)
"""A report with each dispatch too, and which prompt went where: under 1 KB/s of a gateway at this load."""
HELD = Hold(ahead_tokens=8192, deadline=True)
"""One step's prompt tokens under way at each engine; the rest waits at the gateway, in order of deadlines."""
OURS = "predicted-ttft"
GOSSIPING = f"{OURS}, 4 gateways, gossip"
NAMES = (
    "round-robin",
    "least-requests",
    "cache-threshold",
    "linear",
    "sticky",
    "product",
    OURS,
)
SETUPS = (
    *(Setup(name, Knobs(policy=name)) for name in NAMES),
    Setup(f"{OURS}, held for deadlines", Knobs(policy=OURS), hold=HELD),
    Setup(f"{OURS}, 4 gateways, reports only", Knobs(policy=OURS), STALE),
    Setup(GOSSIPING, Knobs(policy=OURS), GOSSIP),
)
LOAD = 0.85
"""Of the oracle's capacity, where hits and latencies are compared."""
NEAR = 4.5
"""Requests per second at which searches begin."""
BARS: Mapping[str, Bar] = {
    "capacity_percent_of_oracle": Bar("at least", 96),
    "hits_percent_of_pooled": Bar("at least", 88),
    "ttft_of_oracle": Bar("at most", 1.10),
    "p99_slowdown": Bar("at most", 1.8),
    "four_gateways_percent_of_one": Bar("at least", 92),
    "overload_6.8_goodput_requests_per_s": Bar("at least", 6.0),
    "overload_6.8_critical_percent": Bar("at least", 95),
    "overload_10.2_goodput_requests_per_s": Bar("at least", 7.2),
    "overload_10.2_critical_percent": Bar("at least", 95),
    "flood_gap_tokens": Bar("at most", 64_000),
    "flood_victims_p99_ttft_of_alone": Bar("at most", 8),
    "flood_percent_of_fcfs": Bar("at least", 98),
}
"""Of means over the seeds; of a flood at the worst window, and its gap with the worst seed."""


class Task(NamedTuple):
    """What one process measures of one setup with one seed."""

    setup: Setup
    seed: int
    first_s: float | None
    """Only so much of the trace."""
    rate: float = NEAR
    """Where the search begins, or of the run."""


def capacity_of(task: Task) -> float:
    """SLO capacity in requests per second."""
    return task.setup.capacity(_workload(task), task.seed, task.rate)


def summary_of(task: Task) -> Summary:
    """One run at the task's rate."""
    return task.setup.at(_workload(task), task.rate, task.seed)


class Crowd(NamedTuple):
    """One run under more load than the engines can carry."""

    rate: float
    seed: int


class Flood(NamedTuple):
    """One flood: a window per engine, the requests per second of all tenants, a seed."""

    window: int
    rate: float
    seed: int


class Table(NamedTuple):
    """All that was measured."""

    comparison: Comparison
    overloads: Sequence[OverloadRow]
    floods: Sequence[FloodRow]


def overload_of(task: Crowd) -> OverloadRow:
    """The whole conversation trace at the task's rate."""
    return overload(task.rate, task.seed)


def flood_of(task: Flood) -> FloodRow:
    """The whole of Azure's trace at the task's rate."""
    return flood(task.window, task.rate, task.seed)


def _workload(task: Task) -> Workload:
    workload = bundled("mooncake")
    return workload if task.first_s is None else workload.first(task.first_s)


def compared(
    setups: Sequence[Setup],
    seeds: int,
    processes: int,
    first_s: float | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """A row for every setup, the pooled oracle's first. `log` is told what has been measured."""
    tasks = [Task(setup, seed, first_s) for setup in (POOLED, *setups) for seed in range(1, seeds + 1)]
    capacities: list[float] = []
    for task, found in _measured(capacity_of, tasks, processes):
        log(f"{task.setup.name}, seed {task.seed}: SLO capacity {found:.2f} requests/s")
        capacities.append(found)
    rate = LOAD * fmean(capacities[:seeds])
    summaries: list[Summary] = []
    tasks = [task._replace(rate=rate) for task in tasks]
    for task, one in _measured(summary_of, tasks, processes):
        log(f"{task.setup.name}, seed {task.seed}: {one.met:.1%} within SLO at {rate:.2f} requests/s")
        summaries.append(one)
    rows = []
    for place in range(0, len(tasks), seeds):
        mine = slice(place, place + seeds)
        rows.append(Row(tasks[place].setup.name, capacities[mine], summaries[mine]))
    return Comparison(rate, rows)


def overloaded(seeds: int, processes: int, log: Callable[[str], None]) -> Sequence[OverloadRow]:
    """Every rate of `RATES` with every seed."""
    rows = []
    crowds = [Crowd(rate, seed) for rate in RATES for seed in range(1, seeds + 1)]
    for task, row in _measured(overload_of, crowds, processes):
        log(
            f"overload {task.rate} requests/s, seed {task.seed}: {row.goodput:.2f} in time, "
            f"{row.critical:.1%} of critical"
        )
        rows.append(row)
    return rows


def flooded(seeds: int, processes: int, log: Callable[[str], None]) -> Sequence[FloodRow]:
    """Every setting with every seed."""
    rows = []
    floods = [Flood(*setting, seed) for setting in SETTINGS for seed in range(1, seeds + 1)]
    for task, row in _measured(flood_of, floods, processes):
        log(
            f"flood, window {task.window}, seed {task.seed}: gap {row.gap:,.0f} tokens, "
            f"victims {row.slowdown:.1f} times alone"
        )
        rows.append(row)
    return rows


Work = TypeVar("Work")
Found = TypeVar("Found")


def _measured(
    measure: Callable[[Work], Found], tasks: Sequence[Work], processes: int
) -> Iterator[tuple[Work, Found]]:
    """Every task with what came of it, in order."""
    with get_context("spawn").Pool(processes) as pool:
        yield from zip(tasks, pool.imap(measure, tasks), strict=True)


def result(table: Table) -> dict[str, object]:
    """What the bars are held against; `ok`: whether all are met."""
    comparison = table.comparison
    ours, stale = comparison.row(OURS), comparison.row(GOSSIPING)
    figures = {
        "capacity_percent_of_oracle": comparison.capacity_percent(ours).mean,
        "hits_percent_of_pooled": comparison.hits_percent(ours).mean,
        "ttft_of_oracle": comparison.ttft_ratio(ours).mean,
        "p99_slowdown": ours.slowdown.mean,
        "four_gateways_percent_of_one": 100 * stale.capacity.mean / ours.capacity.mean,
    }
    for rate in RATES:
        crowd = [row for row in table.overloads if row.rate == rate]
        figures[f"overload_{rate}_goodput_requests_per_s"] = fmean(row.goodput for row in crowd)
        figures[f"overload_{rate}_critical_percent"] = 100 * fmean(row.critical for row in crowd)
    windows = [[row for row in table.floods if row.window == window] for window, _ in SETTINGS]
    figures["flood_gap_tokens"] = max(row.gap for row in table.floods)
    figures["flood_victims_p99_ttft_of_alone"] = max(fmean(row.slowdown for row in rows) for rows in windows)
    figures["flood_percent_of_fcfs"] = 100 * min(fmean(row.throughput for row in rows) for rows in windows)
    missed = [name for name, bar in BARS.items() if not bar.met(figures[name])]
    rounded = {name: round(value, 3) for name, value in figures.items()}
    return {"ok": not missed, "missed": missed, "load_requests_per_s": round(comparison.rate, 3), **rounded}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 0 if every bar is met."""
    parser = argparse.ArgumentParser(
        prog="python -m router.replay.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="directory for CSV files and a picture")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1 or chosen.processes < 1:
        parser.error("--seeds and --processes: give at least 1 of each.")
    begun = time.monotonic()
    progress = Console(stderr=True)

    def log(line: str) -> None:
        progress.print(f"{time.monotonic() - begun:5.0f} s  {line}", highlight=False, soft_wrap=True)

    table = Table(
        compared(SETUPS, chosen.seeds, chosen.processes, log=log),
        overloaded(chosen.seeds, chosen.processes, log),
        flooded(chosen.seeds, chosen.processes, log),
    )
    console = Console(width=120)
    console.print(printed(table.comparison))
    console.print(printed_overloads(table.overloads))
    console.print(printed_floods(table.floods))
    if chosen.out is not None:
        write(table.comparison, chosen.out)
        write_rows(table.overloads, chosen.out / "overload.csv")
        write_rows(table.floods, chosen.out / "flood.csv")
    found = result(table)
    sys.stdout.write(f"RESULT {json.dumps(found)}\n")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
