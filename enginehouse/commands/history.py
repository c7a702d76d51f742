"""`enginehouse history` and `enginehouse rollback`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

Kind = Annotated[str, typer.Argument(help="model, adapter, deployment, profile, policy, tenant or apikey.")]
Name = Annotated[str, typer.Argument(help="Which one.")]


def history(
    kind: Kind, name: Name, url: Url = None, key: Key = None, state_dir: StateDirectory = None
) -> None:
    """Show the last versions of an object and what each changed, the newest first.

    Example: enginehouse history policy gold
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import history as fetched

    versions = asyncio.run(fetched(locate(url, key, state_dir), kind, name))
    for number in reversed(range(len(versions))):
        before = versions[number - 1] if number else None
        typer.echo(_shown(versions[number], before is None or before["deleted"]))
    if not versions:
        typer.echo("unchanged since its history is kept")


def rollback(
    kind: Kind,
    name: Name,
    to: Annotated[
        int | None, typer.Option("--to", help="Version, of `enginehouse history`. Default: the one before.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate and show what would change.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Bring back an earlier version of an object, deleted ones too, if it still fits what is there now.

    Examples:

      enginehouse rollback policy gold

      enginehouse rollback deployment house-chat-latency --to 12 --dry-run
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import rollback as rolled_back

    for change in asyncio.run(rolled_back(locate(url, key, state_dir), kind, name, to, dry_run)):
        typer.echo(change.shown(dry_run))


def _shown(version: dict[str, Any], new: bool) -> str:
    from enginehouse.differences import field_lines

    at_ms = version["at_ms"]
    when = "earlier" if at_ms is None else f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    what = " deleted" if version["deleted"] else ""
    lines = field_lines(version["fields"], new)
    return "\n".join([f"version {version['version']}  {when}{what}", *(f"    {line}" for line in lines)])
