"""Tables and the result line from what was measured: medians over repetitions, ratios within the run."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.bars import Judged, Medians, judge
from bench.scenarios import Figures

COLUMNS = {
    "requests_per_s": "requests/s",
    "requests_per_cpu_s": "requests per CPU-s",
    "rate_p50_ms": "p50 ms at 200/s",
    "rate_p99_ms": "p99 ms at 200/s",
    "streams_tokens_per_s": "256 streams: tokens/s",
    "streams_cpu_s_per_million": "256 streams: CPU-s per M tokens",
    "streams_transit_p50_ms": "256 streams: token transit p50 ms",
    "saturated_tokens_per_s": "sat: tokens/s",
    "saturated_cpu_s_per_million": "sat: CPU-s per M tokens",
    "saturated_transit_p99_ms": "sat: token transit p99 ms",
    "many_ttft_p99_ms": "many: TTFT p99 ms",
    "mb_per_1000_streams": "MB per 1,000 streams",
    "cancel_ms": "cancel ms",
}
RATIOS = ("requests_per_cpu_s", "streams_tokens_per_cpu_s", "saturated_tokens_per_cpu_s")
DISTURBED_CORES = 0.15
"""Other load on the machine above which absolute figures deserve no trust."""


@dataclass(slots=True)
class Measured:
    """Everything one run has seen."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    """Lane -> subject -> one entry per repetition."""
    failures: list[str] = field(default_factory=list)
    other_cores: list[float] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """Results of other benchmarks of the run, by name."""

    def add(self, lane: str, subject: str, figures: Figures) -> None:
        self.figures.setdefault(lane, {}).setdefault(subject, []).append(figures)

    def medians(self) -> Medians:
        return {
            lane: {subject: _median_of_each(reps) for subject, reps in subjects.items()}
            for lane, subjects in self.figures.items()
        }


def _median_of_each(repetitions: Iterable[Figures]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for figures in repetitions:
        for name, value in figures.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: statistics.median(seen) for name, seen in values.items()}


def ratios(medians: Medians) -> dict[str, dict[str, dict[str, float]]]:
    """Lane -> figure -> subject: gateway / subject."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for lane, subjects in medians.items():
        gateway = subjects.get("gateway", {})
        for figure in RATIOS:
            for name, figures in subjects.items():
                if name != "gateway" and figure in figures and figure in gateway:
                    found.setdefault(lane, {}).setdefault(figure, {})[name] = (
                        gateway[figure] / figures[figure]
                    )
    return found


def markdown(measured: Measured) -> str:
    """The tables as text."""
    lines = ["# Benchmark", "", machine(), "", disturbance(measured), ""]
    for lane, subjects in measured.medians().items():
        shown = _columns(subjects)
        lines += [
            f"## In front of {TITLES.get(lane, lane)}",
            "",
            _row(["", *(COLUMNS[name] for name in shown)]),
        ]
        lines.append(_row(["---", *("---:" for _ in shown)]))
        for subject, figures in subjects.items():
            lines.append(_row([subject, *(_number(figures.get(name)) for name in shown)]))
        lines.append("")
    lines += [
        f"- {'met' if verdict.ok else 'MISSED'}: {verdict.text()}" for verdict in judge(measured.medians())
    ]
    lines += [f"- FAILED: {failure}" for failure in measured.failures]
    for name, result in measured.extra.items():
        lines += ["", f"## {name}", "", "```json", json.dumps(result, indent=1), "```"]
    return "\n".join(lines) + "\n"


TITLES = {"openai": "an OpenAI-HTTP server (stub)", "triton": "Triton's bare tensorrt_llm (stub)"}


def show(measured: Measured, console: Console) -> None:
    """The tables on the terminal, one column per subject."""
    for lane, subjects in measured.medians().items():
        table = Table(title=f"In front of {TITLES.get(lane, lane)}", title_justify="left")
        table.add_column("")
        for subject in subjects:
            table.add_column(subject, justify="right")
        for name in _columns(subjects):
            table.add_row(COLUMNS[name], *(_number(figures.get(name)) for figures in subjects.values()))
        console.print(table)
    for verdict in judge(measured.medians()):
        console.print(
            ("[green]met   [/] " if verdict.ok else "[red]MISSED[/] ") + verdict.text(), highlight=False
        )
    for failure in measured.failures:
        console.print(f"[red]FAILED[/] {failure}", highlight=False)
    console.print(disturbance(measured), highlight=False)


def result(measured: Measured) -> dict[str, Any]:
    """What the `RESULT` line says."""
    medians = measured.medians()
    verdicts = judge(medians)
    return {
        "ok": all(verdict.ok for verdict in verdicts) and not measured.failures,
        "bars": [_judged(verdict) for verdict in verdicts],
        "ratios": ratios(medians),
        "figures": medians,
        "failures": measured.failures,
        "other_cores": round(statistics.median(measured.other_cores), 3) if measured.other_cores else None,
        "machine": machine(),
        **measured.extra,
    }


def _judged(verdict: Judged) -> dict[str, Any]:
    return {"lane": verdict.lane, **asdict(verdict.bar), "value": round(verdict.value, 3), "ok": verdict.ok}


def machine() -> str:
    """One line about where this ran."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {os.cpu_count()} cores, Python {platform.python_version()}"


def disturbance(measured: Measured) -> str:
    """How busy others kept the machine while we measured."""
    if not measured.other_cores:
        return "Nothing was measured."
    median, worst = statistics.median(measured.other_cores), max(measured.other_cores)
    advice = " Absolute figures deserve no trust; compare CPU-seconds." if median > DISTURBED_CORES else ""
    return f"Other load on the machine: median {median:.2f} cores, worst {worst:.2f}.{advice}"


def _columns(subjects: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [name for name in COLUMNS if any(name in figures for figures in subjects.values())]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
