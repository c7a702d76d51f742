"""`enginehouse traces`: the latest requests of a trace file in a table, one of them as a tree."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.table import Table

from enginehouse.console import output
from enginehouse.errors import CommandError
from telemetry import names
from telemetry.trace_view import Trace, load, render

COLUMNS = (
    (names.REQUEST_MODEL, "model"),
    (names.HTTP_RESPONSE_STATUS_CODE, "status"),
    (names.USAGE_INPUT_TOKENS, "in"),
    (names.USAGE_OUTPUT_TOKENS, "out"),
    (names.ENDPOINT, "endpoint"),
)


def show(trace_id: str | None, last: int, path: Path) -> None:
    """Print the newest `last` traces of the file, or the one whose id begins with `trace_id`."""
    found = load(path, trace_id, last) if path.exists() else []
    if not found:
        which = f"no trace begins with {trace_id}" if trace_id else "no request has been traced yet"
        raise CommandError(
            f"{which} in {path}",
            "of a gateway that `up` did not start, give its telemetry.trace_file: --file PATH",
        )
    output().print(render(found) if trace_id else _table(found))


def _table(traces: list[Trace]) -> Table:
    table = Table("trace", "when", "took ms", *(label for _, label in COLUMNS), box=None, pad_edge=False)
    for trace in traces:
        began = datetime.fromtimestamp(trace.start_ns / 1e9).astimezone()
        table.add_row(
            trace.trace_id[:16],
            f"{began:%H:%M:%S}",
            f"{trace.duration_ns / 1e6:.1f}",
            *(_attribute(trace, name) for name, _ in COLUMNS),
        )
    return table


def _attribute(trace: Trace, name: str) -> str:
    """The first value that any of the trace's spans has."""
    return next((str(span.attributes[name]) for _, span in trace.spans if name in span.attributes), "")
