"""How a fleet is shown on one screen: deployments, pools, rollouts, builds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enginehouse.build_listing import as_table
from enginehouse.fleet_look import FleetLook
from enginehouse.fleet_rows import DeploymentRow, ServerRow, deployment_rows, server_rows
from enginehouse.rolling_out import Progress
from enginehouse.rollout_view import one_line

STALE_S = 10.0
"""Reports of gateways that are older say nothing of now."""


def screen(root: str, now: FleetLook, before: FleetLook | None) -> RenderableType:
    """The screen; rates and times are of what came since `before`."""
    earlier = None if before is None else before.demand
    rows = list(deployment_rows(now.snapshot, now.demand, earlier))
    parts: list[RenderableType] = [_head(root, now, rows), Text(), _deployments(rows)]
    if servers := list(server_rows(now.snapshot)):
        parts += [Text(), _servers(servers)]
    if lines := list(_rollouts(now)):
        parts += [Text(), *lines]
    if now.builds:
        parts += [Text(), as_table(now.builds)]
    return Group(*parts)


def _head(root: str, now: FleetLook, rows: Sequence[DeploymentRow]) -> RenderableType:
    figures = [row.figures for row in rows if row.figures is not None]
    rates = [one.per_s for one in figures if one.per_s is not None]
    facts = [
        f"{sum(rates):.1f} requests/s" if rates else "",
        f"{sum(row.in_flight for row in rows)} in flight",
        f"{sum(one.waiting for one in figures)} waiting",
        f"{sum(one.held for one in figures)} held",
    ]
    head = Text.assemble((root, "bold"), f"  {time.strftime('%H:%M:%S')}  ")
    head.append("  ".join(fact for fact in facts if fact))
    age_s = now.demand.age_s
    if age_s is None:
        head.append("  no gateway reports", style="red")
    elif age_s > STALE_S:
        head.append(f"  reports are {age_s:.0f} s old", style="red")
    if now.note is not None:
        head.append(f"\n{now.note}", style="yellow")
    return head


def _deployments(rows: Sequence[DeploymentRow]) -> RenderableType:
    if not rows:
        return Text("no deployments")
    table = Table(box=None, pad_edge=False)
    table.add_column("deployment", overflow="fold", min_width=10)
    table.add_column("model:\nprofile", overflow="fold", min_width=8)
    table.add_column("replicas", no_wrap=True)
    for column in ("load", "in\nflight", "waiting", "held", "asked\n/s", "mean\nTTFT", "late"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.model}:{row.profile}",
            _replicas(row),
            _load(row),
            str(row.in_flight),
            *_figures(row),
        )
    return Group(table, *(Text(f"{row.name}: {row.why}", style="dim") for row in rows if row.why))


def _replicas(row: DeploymentRow) -> Text:
    text = Text(f"{row.ready}/{row.wanted}", style="" if row.ready >= row.wanted else "yellow")
    if row.starting:
        text.append(f" +{row.starting}", style="green")
    if row.draining:
        text.append(f" -{row.draining}", style="dim")
    return text


def _load(row: DeploymentRow) -> str:
    if row.load is None:
        return ""
    return f"{row.load:.2f}" if row.expected is None else f"{row.load:.2f} → {row.expected:.2f}"


def _figures(row: DeploymentRow) -> tuple[RenderableType, ...]:
    """Empty where a row above has told them."""
    figures = row.figures
    if figures is None:
        return ("",) * 5
    late = figures.late
    return (
        str(figures.waiting),
        str(figures.held),
        "" if figures.per_s is None else f"{figures.per_s:.1f}",
        "" if figures.ttft_s is None else f"{1000 * figures.ttft_s:.0f} ms",
        "" if late is None else Text(f"{late:.0%}", style="red" if late > 0.05 else ""),
    )


def _servers(rows: Iterable[ServerRow]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for column in ("pool", "server", "memory", "models"):
        table.add_column(column, overflow="fold", justify="right" if column == "memory" else "left")
    for row in rows:
        models = Text(", ".join(row.ready))
        for names, style, mark in ((row.loading, "green", "+"), (row.leaving, "dim", "-")):
            for name in names:
                models.append(f" {mark}{name}", style=style)
        table.add_row(row.pool, row.http, _memory(row), models)
    return table


def _memory(row: ServerRow) -> str:
    if row.budget_mib is None:
        return ""
    taken = "?" if row.taken_mib is None else f"{row.taken_mib:.0f}"
    return f"{taken} of {row.budget_mib} MiB"


def _rollouts(now: FleetLook) -> Iterable[Text]:
    """Those that are not over."""
    for rollout in now.snapshot.rollouts.values():
        known = Progress(rollout, now.snapshot.rollout_statuses.get(rollout.name))
        if not known.over:
            yield Text.assemble(("rollout ", "bold"), one_line(known))
