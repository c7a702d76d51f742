"""`enginehouse version`."""

from __future__ import annotations

import typer


def version() -> None:
    """Print the version.

    Example: enginehouse version
    """
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        typer.echo(f"enginehouse {installed('enginehouse')}")
    except PackageNotFoundError:
        typer.echo("enginehouse (run from its source folder, not installed)")
