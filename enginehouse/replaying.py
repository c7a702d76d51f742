"""What `enginehouse replay` does: runs, a table, and the errors that it tells."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from enginehouse.card_files import read_engine_card
from enginehouse.errors import CommandError
from enginehouse.written import write_text
from model_registry.knobs import Knobs
from router.policies import PolicyError, make, names
from router.replay.engine import EngineCard
from router.replay.gateways import Exchange
from router.replay.run import Fleet
from router.replay.setups import Setup
from router.replay.statistics import Slo, Summary, interval
from router.replay.workload import TraceError, Workload, bundled, read

MOST_ENGINES = 1024
"""Where a plan gives up."""


class Asked(NamedTuple):
    """The command's options."""

    trace: Path | None
    policies: tuple[str, ...]
    rate: float | None
    engines: int
    plan: bool
    gateways: int
    report_period_s: float
    slo: Slo
    card: Path | None
    seeds: int
    out: Path | None


class Answer(NamedTuple):
    """One policy's, a summary for each seed."""

    policy: str
    engines: int
    summaries: list[Summary]

    @property
    def met(self) -> float:
        """Share of requests that got what the SLO says, over all seeds."""
        return interval([one.met for one in self.summaries]).mean


def show(asked: Asked) -> None:
    """Replay, and print. Raises CommandError."""
    try:
        workload = bundled("mooncake") if asked.trace is None else read(asked.trace)
        card = EngineCard() if asked.card is None else read_engine_card(asked.card)
        for policy in asked.policies:
            make(policy)
        rate = asked.rate or workload.rate
        answers = list(_answers(asked, workload, card, rate))
    except TraceError as error:
        raise CommandError(str(error)) from error
    except PolicyError as error:
        raise CommandError(str(error), f"Policies: {', '.join(names())}.") from error
    Console().print(_table(asked, workload, rate, answers))
    if asked.out is not None:
        _write(asked.out, rate, answers)


def _answers(asked: Asked, workload: Workload, card: EngineCard, rate: float) -> Iterator[Answer]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("", total=1.0)

        def runs(policy: str, engines: int) -> Answer:
            summaries = []
            for seed in range(1, asked.seeds + 1):
                text = f"{policy}, {engines} engines, seed {seed}"
                progress.reset(shown, description=text, total=1.0)
                setup = Setup(
                    policy,
                    Knobs(policy=policy),
                    Exchange(asked.gateways, asked.report_period_s),
                    fleet=Fleet(engines, card, workload.block_tokens),
                    slo=asked.slo,
                )
                told = setup.at(workload, rate, seed, lambda done: progress.update(shown, completed=done))
                summaries.append(told)
            return Answer(policy, engines, summaries)

        for policy in asked.policies:
            yield _planned(policy, runs, asked.slo) if asked.plan else runs(policy, asked.engines)


def _planned(policy: str, runs: Callable[[str, int], Answer], slo: Slo) -> Answer:
    """The fewest engines that meet the SLO, by doubling and halving."""
    low, high = 0, 1
    best = runs(policy, high)
    while best.met < slo.share:
        low, high = high, high * 2
        if high > MOST_ENGINES:
            raise CommandError(
                f"With {policy}, {low} engines do not meet the SLO ({best.met:.1%} of requests get it).",
                "Some requests may miss it on an idle engine: ask for less, or give a faster --card.",
            )
        best = runs(policy, high)
    while high - low > 1:
        middle = (low + high) // 2
        answer = runs(policy, middle)
        if answer.met >= slo.share:
            high, best = middle, answer
        else:
            low = middle
    return best


def _table(asked: Asked, workload: Workload, rate: float, answers: list[Answer]) -> Table:
    slo = asked.slo
    table = Table(
        title=f"{workload.name}, {len(workload.requests):,} requests at {rate:.2f}/s; "
        f"SLO for {slo.share:.0%}: TTFT {slo.ttft_s:g} s, ITL {slo.itl_s:g} s"
    )
    table.add_column("policy")
    for head in ("engines", "SLO met %", "hits %", "TTFT s", "TTFT p99 s", "p99 slowdown", "ITL ms"):
        table.add_column(head, justify="right")
    for answer in answers:
        ones = answer.summaries
        figures = (
            interval([100 * one.met for one in ones]),
            interval([100 * one.hits for one in ones]),
            interval([one.mean_ttft_s for one in ones]),
            interval([one.p99_ttft_s for one in ones]),
            interval([one.p99_slowdown for one in ones]),
            interval([1000 * one.mean_itl_s for one in ones]),
        )
        style = None if answer.met >= slo.share else "red"
        table.add_row(answer.policy, str(answer.engines), *map(str, figures), style=style)
    return table


def _write(path: Path, rate: float, answers: list[Answer]) -> None:
    text = StringIO()
    rows = csv.writer(text)
    rows.writerow(["policy", "engines", "rate", "seed", *Summary._fields])
    for answer in answers:
        for seed, one in enumerate(answer.summaries, 1):
            rows.writerow([answer.policy, answer.engines, rate, seed, *one])
    write_text(path, text.getvalue(), "--out")
