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
the run.
"""


def counts(matrix: Matrix) -> dict[str, int]:
    every = [outcome.verdict for row in matrix.values() for outcome in row.values()]
    return {
        "cells": len(every),
        **{verdict.lower(): every.count(verdict) for verdict in ("pass", "refused", "FAILED")},
    }


def page(lanes: Sequence[str], probes: Sequence[Probe], matrix: Matrix) -> str:
    """The page in Markdown: one table a group, and every reason once."""
    reasons: dict[str, int] = {}
    lines = [_HEAD]
    for group in dict.fromkeys(probe.group for probe in probes):
        lines += [
            f"## {group.capitalize()}",
            "",
            f"| | {' | '.join(lanes)} |",
            "|---" * (len(lanes) + 1) + "|",
        ]
        for probe in probes:
            if probe.group == group:
                cells = [_cell(matrix[probe.name].get(lane), reasons) for lane in lanes]
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
