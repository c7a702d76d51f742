"""`enginehouse explain`: the latest decisions in a table, those of one request with their candidates."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from rich.console import RenderableType
from rich.table import Table

from enginehouse.api import ask_workers
from enginehouse.connection import Connection
from enginehouse.console import output
from enginehouse.errors import CommandError

_OF_ONE_REQUEST = 100
_OWN_COLUMNS = ("endpoint", "profile", "score", "not_taken")

Decision = dict[str, Any]


async def show(connection: Connection, request_id: str | None, model: str | None, last: int) -> None:
    """Print the newest `last` decisions, or all of one request. Raises CommandError when there is none."""
    limit = last if request_id is None else _OF_ONE_REQUEST
    found = await fetch(connection, request_id, model, limit)
    if not found:
        which = "of this request" if request_id else "yet"
        raise CommandError(
            f"no decision {which} is kept by the gateway at {connection.root}",
            "a worker keeps its latest router.explained_decisions, until it ends",
        )
    output().print(table(found[:limit]))
    if request_id is not None:
        for decision in reversed(found):
            output().print(candidates(decision))


async def fetch(
    connection: Connection, request_id: str | None, model: str | None, limit: int
) -> list[Decision]:
    """Decisions of every worker, newest first; of one request, those of its worker."""
    asked = {"request_id": request_id, "model": model, "limit": limit}
    path = "decisions?" + urlencode({name: value for name, value in asked.items() if value is not None})
    told = await ask_workers(
        connection, path, lambda answer: request_id is not None and bool(answer["decisions"])
    )
    return sorted((one for each in told for one in each["decisions"]), key=lambda one: -one["at_s"])


def table(decisions: list[Decision]) -> Table:
    """A row for each decision."""
    made = Table(
        "when",
        "request",
        "model",
        "try",
        "endpoint",
        "policy",
        "reason",
        "waited ms",
        box=None,
        pad_edge=False,
    )
    for one in decisions:
        began = datetime.fromtimestamp(one["at_s"]).astimezone()
        after = f", after {one['after']}" if one["after"] else ""
        held = f", held {one['held_ms']:.0f} ms for a cold model" if one["held_ms"] else ""
        made.add_row(
            f"{began:%H:%M:%S}",
            one["request_id"],
            f"{one['model']}:{one['profile']}",
            f"{one['attempt']}{' hedge' if one['hedge'] else ''}",
            one["endpoint"] or "none",
            one["policy"] or "",
            one["reason"] + after + held,
            f"{one['wait_ms']:.1f}",
        )
    return made


def candidates(decision: Decision) -> RenderableType:
    """What one decision was made of."""
    rows: list[dict[str, Any]] = decision["candidates"]
    more = sorted({name for row in rows for name in row} - set(_OWN_COLUMNS))
    hedge = ", hedge" if decision["hedge"] else ""
    made = Table(
        *_OWN_COLUMNS,
        *more,
        box=None,
        pad_edge=False,
        title=f"attempt {decision['attempt']}{hedge}",
        title_justify="left",
    )
    for row in rows:
        chosen = row["endpoint"] == decision["endpoint"]
        shown = {**row, "not_taken": "chosen" if chosen else row["not_taken"]}
        made.add_row(*(_cell(shown.get(name)) for name in (*_OWN_COLUMNS, *more)))
    return made


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
