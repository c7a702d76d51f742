"""How a rollout is shown: where it stands, why, and each figure beside its bounds."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from enginehouse.rolling_out import Progress
from model_registry.rollouts import Figure, RolloutStatus

_COLOURS = {"promoted": "green", "rolled_back": "red", "aborted": "yellow"}
_RATIOS = ("ttft", "pace", "length")


def one_line(known: Progress) -> str:
    """For a list, or a log."""
    rollout, status, note = known
    line = f"{rollout.name}  {rollout.model}: {rollout.stable} -> {rollout.candidate}  {known.phase}"
    if status is None:
        return f"{line}  no controller has looked at it yet"
    if known.phase == "canary":
        line += f" {100 * status.share:.3g} % (step {status.step + 1} of {len(rollout.steps)})"
    return f"{line}  {status.reason}{'' if note is None else f' [{note}]'}"


def shown(known: Progress) -> RenderableType:
    """Everything about one."""
    rollout, status, note = known
    head = Table.grid(padding=(0, 2))
    head.add_row(
        "rollout", Text(f"{rollout.name}  ({rollout.model}: {rollout.stable} -> {rollout.candidate})")
    )
    if note is not None:
        head.add_row("note", Text(note, style="yellow"))
    if status is None:
        head.add_row("phase", "pending: no controller has looked at it yet")
        return head
    head.add_row("phase", Text(_phase(known), style=_COLOURS.get(known.phase, "bold")))
    head.add_row("why", Text(status.reason))
    share = f"{100 * status.share:.3g} % of new requests"
    head.add_row("served", f"{share}; {status.exposed:.2%} of all since its begin")
    if status.needed and not known.over:
        head.add_row("seen", f"{status.samples} of {status.needed} in this phase; {_eta(status)}")
    if status.agreement is not None:
        head.add_row("agreement", f"{status.agreement:.1%} of the text, up to the first difference")
    if status.skipped:
        told = ", ".join(f"{why} {count}" for why, count in sorted(status.skipped.items()))
        head.add_row("not copied", Text(told))
    if status.evidence_age_s is not None and not known.over:
        head.add_row("evidence", f"{status.evidence_age_s:.0f} s old")
    return Group(head, _figures(status)) if status.figures else head


def _phase(known: Progress) -> str:
    rollout, status, _ = known
    assert status is not None
    wanted = "" if rollout.wanted == "run" or known.over else f", {rollout.wanted} wanted"
    if known.phase != "canary":
        return f"{known.phase}{wanted}"
    steps = " ".join(
        f"[{step.share:.0%}]" if at == status.step else f"{step.share:.0%}"
        for at, step in enumerate(rollout.steps)
    )
    return f"canary {steps}{wanted}"


def _eta(status: RolloutStatus) -> str:
    if status.eta_s is None:
        return "no telling yet how long"
    return (
        f"about {status.eta_s:.0f} s more"
        if status.eta_s < 120
        else f"about {status.eta_s / 60:.0f} min more"
    )


def _figures(status: RolloutStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in ("figure", "candidate", "stable", "of", "harmless", "harmful", "worse", "no worse"):
        table.add_column(column)
    for figure in status.figures:
        table.add_row(
            figure.name,
            _value(figure, figure.candidate, figure.p90),
            _value(figure, figure.stable),
            f"{figure.samples}/{figure.stable_samples}" if figure.stable_samples else f"{figure.samples}",
            _bound(figure, figure.harmless),
            _bound(figure, figure.harmful),
            ProgressBar(1.0, figure.alarm, width=10, complete_style="red", finished_style="bold red"),
            ProgressBar(1.0, figure.cleared, width=10, complete_style="green", finished_style="bold green"),
        )
    return table


def _is_ratio(figure: Figure) -> bool:
    return figure.name.rpartition(".")[2] in _RATIOS


def _value(figure: Figure, value: float | None, p90: float | None = None) -> str:
    if value is None:
        return "-"
    if not _is_ratio(figure):
        return f"{value:.2%}"
    return f"x {value:.2f}" if p90 is None else f"x {value:.2f} (p90 {p90:.2f})"


def _bound(figure: Figure, bound: float) -> str:
    return f"x {1 + bound:.2f}" if _is_ratio(figure) else f"+{bound:.1%}"
