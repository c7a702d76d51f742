"""`enginehouse traces`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.commands.options import StateDirectory


def traces(
    trace_id: Annotated[
        str | None, typer.Argument(help="Show this one as a tree; the first digits do.")
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many to list.")] = 20,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A gateway's telemetry.trace_file. Default: the local stack's."),
    ] = None,
    state_dir: StateDirectory = None,
) -> None:
    """List the latest traced requests of the local stack, or show where one's time went.

    Examples:

      enginehouse traces

      enginehouse traces 4bf92f35

      enginehouse traces --file /var/log/enginehouse/traces.jsonl
    """
    from enginehouse.local.state_dir import StateDir, default_state_dir
    from enginehouse.trace_listing import show

    show(trace_id, last, file or StateDir(state_dir or default_state_dir()).traces)
