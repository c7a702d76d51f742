"""`enginehouse traces`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import StateDirectory


def traces(
    trace_id: Annotated[
        str | None, typer.Argument(help="Show this one as a tree; the first digits do.")
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many to list.")] = 20,
    state_dir: StateDirectory = None,
) -> None:
    """List the latest traced requests of the local stack, or show where one's time went.

    Examples:

      enginehouse traces

      enginehouse traces 4bf92f35
    """
    from enginehouse.trace_listing import show

    show(trace_id, last, state_dir)
