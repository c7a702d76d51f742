"""Tuning report: what a search found, as a table, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from engine_builder.tuning.overrides import IN_FLIGHT, config_lines
from engine_builder.tuning.pareto import front, picture
from engine_builder.tuning.space import Measured, Setting
from enginehouse.tuning import Found
from model_registry.manifests import to_manifest

_BAR = 24


def table(found: Found) -> Table:
    """Every setting at the load where it does best, the best first; with bars of goodput."""
    start = found.journal.space.start
    best = _best_of_each(found.journal.history)
    most = max((one.goodput for one in best), default=0.0) or 1.0
    shown = Table(title=f"{found.journal.model}: goodput of one replica by setting")
    for head in ("setting", "clients", "goodput /s", "", "in time %", "TTFT p50 s", "TTFT p99 s", "ITL ms"):
        shown.add_column(head, justify="left" if head in {"setting", ""} else "right")
    for one in best:
        marks = "".join(
            (
                "* " if one.trial.setting == found.done.best else "",
                "(as it was) " if one.trial.setting == start else "",
            )
        )
        if one.error is not None:
            shown.add_row(f"{one.trial.setting}", "-", "fails", one.error[:80], *"----")
            continue
        shown.add_row(
            f"{marks}{one.trial.setting}",
            str(one.trial.clients),
            f"{one.goodput:.3g}",
            "█" * round(_BAR * one.goodput / most),
            f"{100 * one.met:.0f}",
            f"{one.ttft_s:.3g}",
            f"{one.ttft_p99_s:.3g}",
            f"{1e3 * one.itl_s:.3g}",
        )
    return shown


def summary(found: Found, kept: bool) -> Group:
    """What was found and what to do about it, in lines."""
    done, start = found.done, found.journal.space.start
    changed = done.best.differs_from(start)
    at_start = max((one.goodput for one in found.journal.history if one.trial.setting == start), default=0.0)
    lines = [f"{len(found.journal.history)} trials; {done.reason}"]
    if not changed:
        lines.append(
            f"it is set best as it is: {done.goodput:.3g} requests/s in time at {done.clients} clients"
        )
    else:
        gain = f", {done.goodput / at_start:.2f} x of {at_start:.3g}" if at_start else ""
        lines.append(f"best: {done.best}: {done.goodput:.3g} requests/s in time{gain}")
        if not done.confirmed:
            lines.append("measured once only: the best of many measurements is partly luck")
        lines += [
            "left in force, until the server starts anew:" if kept else "put back as it was; to keep it:"
        ]
        lines += [f"  config.pbtxt: {line}" for line in config_lines(changed)]
        if IN_FLIGHT in changed:
            lines.append(f"  Deployment: max_concurrency: {changed[IN_FLIGHT]} (in the manifest)")
    lines.append("not beaten in both throughput and time between tokens:")
    lines += [
        f"  {1e3 * one.itl_s:7.3g} ms  {one.output_tokens_per_s:8.4g} tokens/s  "
        f"{one.trial.clients:4d} clients  {one.trial.setting}"
        for one in front(found.journal.history)
    ]
    return Group(*map(Text, lines))


def as_json(found: Found) -> str:
    """Everything, for programs."""
    done = found.done
    fields: dict[str, Any] = {
        "model": found.journal.model,
        "reason": done.reason,
        "best": dict(done.best.values),
        "changed": dict(done.best.differs_from(found.journal.space.start)),
        "clients": done.clients,
        "goodput_requests_per_s": done.goodput,
        "confirmed": done.confirmed,
        "trials": [
            {
                **one._asdict(),
                "trial": {**one.trial._asdict(), "setting": dict(one.trial.setting.values)},
                "goodput": one.goodput,
            }
            for one in found.journal.history
        ],
        "deployment": to_manifest(found.deployment),
    }
    return json.dumps(fields, indent=2)


def svg(found: Found) -> str:
    """The Pareto picture."""
    title = f"{found.journal.model}: throughput and time between tokens"
    return picture(found.journal.history, found.journal.space.start, title)


def _best_of_each(history: Iterable[Measured]) -> Sequence[Measured]:
    by_setting: dict[Setting, Measured] = {}
    for one in history:
        known = by_setting.get(one.trial.setting)
        if known is None or (one.trial.weight, one.goodput) > (known.trial.weight, known.goodput):
            by_setting[one.trial.setting] = one
    return sorted(by_setting.values(), key=lambda one: one.goodput, reverse=True)
