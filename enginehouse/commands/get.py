"""`enginehouse get` and `enginehouse describe`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

Kind = Annotated[str, typer.Argument(help="model, deployment, endpoint, tenant or apikey; plural works too.")]


def get(
    kind: Kind,
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    output: Annotated[
        Literal["table", "yaml", "json"], typer.Option("--output", "-o", help="Format.")
    ] = "table",
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """List what the registry holds of one kind.

    Examples:

      enginehouse get models

      enginehouse get endpoints -o json

      enginehouse get deployment house-chat-latency -o yaml
    """
    from enginehouse.listing import render

    typer.echo(render(_fetch(kind, name, url, key, state_dir), output))


def describe(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Which one.")],
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show one object with everything that is known of it.

    Example: enginehouse describe model house-chat
    """
    from enginehouse.listing import describe_text, related_kinds

    item = _fetch(kind, name, url, key, state_dir)[0]
    related = {other: _fetch(other, None, url, key, state_dir) for other in related_kinds(kind)}
    typer.echo(describe_text(kind, item, related))


def _fetch(
    kind: str, name: str | None, url: Url, key: Key, state_dir: StateDirectory
) -> list[dict[str, Any]]:
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.listing import fetch

    return asyncio.run(fetch(locate(url, key, state_dir), kind, name))
