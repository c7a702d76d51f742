"""`enginehouse doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import StateDirectory


def doctor(
    port: Annotated[int, typer.Option("--port", help="Port that `up` would use.")] = 8080,
    state_dir: StateDirectory = None,
) -> None:
    """Check this machine and say what is missing, and for what. Exit status 1 when `up` cannot run.

    Example: enginehouse doctor
    """
    from enginehouse.doctor import examine, show
    from enginehouse.local.state_dir import default_state_dir

    findings = examine(port, state_dir or default_state_dir())
    show(findings)
    raise typer.Exit(1 if any(finding.blocks for finding in findings) else 0)
