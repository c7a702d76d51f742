"""Report: the matrix of a run, as the page `docs/conformance.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tests.conformance.probes import Probe

Verdict = Literal["pass", "refused", "FAILED"]


class Outcome(NamedTuple):
    verdict: Verdict
    note: str = ""
    """Why it was refused, in the gateway's words, or what went wrong."""


Matrix = Mapping[str, Mapping[str, Outcome]]
"""Probe name -> lane -> outcome."""

_HEAD = """# Conformance

What every feature of the API does on every lane. Written by `make conformance`, which asks a running gateway
in front of real Triton; nothing here is written by hand. **yes**: asked for, and its effect was seen. A
number: refused with a 400 that says why, below. Nothing is silently ignored: a feature without effect fails
the run. A dash: not asked of this lane.
"""


class Section(NamedTuple):
    """Probes that were put to the same lanes."""

    lanes: Sequence[str]
    probes: Sequence[Probe]
    matrix: Matrix


def counts(sections: Sequence[Section]) -> dict[str, int]:
    every = [cell.verdict for section in sections for row in section.matrix.values() for cell in row.values()]
    verdicts: tuple[Verdict, ...] = ("pass", "refused", "FAILED")
    return {"cells": len(every), **{verdict.lower(): every.count(verdict) for verdict in verdicts}}


def page(sections: Sequence[Section]) -> str:
    """The page in Markdown: one table a group, and every reason once."""
    reasons: dict[str, int] = {}
    lines = [_HEAD]
    for section in sections:
        for group in dict.fromkeys(probe.group for probe in section.probes):
            lines += [f"## {group[0].upper()}{group[1:]}", ""]
            lines += [f"| | {' | '.join(section.lanes)} |", "|---" * (len(section.lanes) + 1) + "|"]
            for probe in section.probes:
                if probe.group == group:
                    row = section.matrix[probe.name]
                    cells = [_cell(row.get(lane), reasons) for lane in section.lanes]
                    lines.append(f"| {probe.name} | {' | '.join(cells)} |")
            lines.append("")
    lines += ["## Reasons", "", *(f"{number}. {reason}" for reason, number in reasons.items()), ""]
    return "\n".join(lines)


def _cell(outcome: Outcome | None, reasons: dict[str, int]) -> str:
    if outcome is None:
        return "-"
    if outcome.verdict == "pass":
        return "yes"
    number = reasons.setdefault(outcome.note, len(reasons) + 1)
    return f"{number}" if outcome.verdict == "refused" else f"**FAILED** {number}"
