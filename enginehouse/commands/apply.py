"""`enginehouse apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def apply(
    files: Annotated[
        list[str],
        typer.Option(
            "--file", "-f", help="Manifest: a YAML file, a folder of them, or - for stdin. May repeat."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate and show what would change.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Make the registry agree with manifests: all of them, or, when one is wrong, none.

    Examples:

      enginehouse apply -f examples/own-triton.yaml

      enginehouse apply -f manifests/ --dry-run

      cat model.yaml | enginehouse apply -f -
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.manifests import apply_files, read_manifests

    changes = asyncio.run(apply_files(locate(url, key, state_dir), read_manifests(files), dry_run))
    for change in changes:
        typer.echo(change.shown(dry_run))
    if not changes:
        typer.echo("nothing to apply: no manifest found")
