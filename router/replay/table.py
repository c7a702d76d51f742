"""The comparison that `make replay` prints: policies beside the pooled oracle, and its bars.

    python -m router.replay.table [--seeds 5] [--processes 2] [--out DIRECTORY]

The conversation trace that comes with this package on eight engines of the default card. The last line is
`RESULT {json}`, in which `ok` says whether every bar is met.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from rich.console import Console

from model_registry.knobs import Knobs
from router.replay.gateways import Exchange, Hold
from router.replay.report import Comparison, Row, printed, write
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
BARS: Mapping[str, tuple[str, float]] = {
    "capacity_percent_of_oracle": ("at least", 96),
    "hits_percent_of_pooled": ("at least", 88),
    "ttft_of_oracle": ("at most", 1.10),
    "p99_slowdown": ("at most", 1.8),
    "four_gateways_percent_of_one": ("at least", 92),
}


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
    with get_context("spawn").Pool(processes) as pool:
        capacities: list[float] = []
        for task, found in zip(tasks, pool.imap(capacity_of, tasks), strict=True):
            log(f"{task.setup.name}, seed {task.seed}: SLO capacity {found:.2f} requests/s")
            capacities.append(found)
        rate = LOAD * fmean(capacities[:seeds])
        summaries: list[Summary] = []
        tasks = [task._replace(rate=rate) for task in tasks]
        for task, one in zip(tasks, pool.imap(summary_of, tasks), strict=True):
            log(f"{task.setup.name}, seed {task.seed}: {one.met:.1%} within SLO at {rate:.2f} requests/s")
            summaries.append(one)
    rows = []
    for place in range(0, len(tasks), seeds):
        mine = slice(place, place + seeds)
        rows.append(Row(tasks[place].setup.name, capacities[mine], summaries[mine]))
    return Comparison(rate, rows)


def result(comparison: Comparison) -> dict[str, object]:
    """What the bars are held against, as means over the seeds; `ok`: whether all are met."""
    ours, stale = comparison.row(OURS), comparison.row(GOSSIPING)
    figures = {
        "capacity_percent_of_oracle": comparison.capacity_percent(ours).mean,
        "hits_percent_of_pooled": comparison.hits_percent(ours).mean,
        "ttft_of_oracle": comparison.ttft_ratio(ours).mean,
        "p99_slowdown": ours.slowdown.mean,
        "four_gateways_percent_of_one": 100 * stale.capacity.mean / ours.capacity.mean,
    }
    missed = [
        name
        for name, (side, bar) in BARS.items()
        if (figures[name] < bar if side == "at least" else figures[name] > bar)
    ]
    rounded = {name: round(value, 3) for name, value in figures.items()}
    return {"ok": not missed, "missed": missed, "load_requests_per_s": round(comparison.rate, 3), **rounded}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 0 if every bar is met."""
    parser = argparse.ArgumentParser(prog="python -m router.replay.table")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="directory for replay.csv and replay.svg")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1 or chosen.processes < 1:
        parser.error("--seeds and --processes: give at least 1 of each.")
    begun = time.monotonic()
    progress = Console(stderr=True)
    comparison = compared(
        SETUPS,
        chosen.seeds,
        chosen.processes,
        log=lambda line: progress.print(f"{time.monotonic() - begun:5.0f} s  {line}", highlight=False),
    )
    console = Console(width=120)
    console.print(printed(comparison))
    if chosen.out is not None:
        write(comparison, chosen.out)
    found = result(comparison)
    sys.stdout.write(f"RESULT {json.dumps(found)}\n")
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
