"""`enginehouse get` and `enginehouse describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

if TYPE_CHECKING:
    from enginehouse.objects import Objects

Kind = Annotated[
    str,
    typer.Argument(
        help="model, adapter, deployment, endpoint, profile, policy, tenant or apikey; plural works too."
    ),
]


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
    from enginehouse.console import output as console
    from enginehouse.listing import as_json, as_table, as_yaml

    objects = _fetch(kind, name, url, key, state_dir)
    _note(objects)
    if output == "table":
        console().print(as_table(objects))
    else:
        typer.echo(as_json(objects) if output == "json" else as_yaml(objects))


def describe(
    kind: Kind,
    name: Annotated[str, typer.Argument(help="Which one.")],
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show one object with all its fields, and what names it.

    Example: enginehouse describe model house-chat
    """
    from enginehouse.listing import RELATED
    from enginehouse.listing import describe as described

    objects = _fetch(kind, name, url, key, state_dir)
    _note(objects)
    related = [_fetch(other, None, url, key, state_dir) for other in RELATED.get(objects.kind, {})]
    typer.echo(described(objects, related))


def _fetch(kind: str, name: str | None, url: Url, key: Key, state_dir: StateDirectory) -> Objects:
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import fetch

    return asyncio.run(fetch(locate(url, key, state_dir), kind, name))


def _note(objects: Objects) -> None:
    if objects.note is not None:
        typer.echo(f"note: {objects.note}", err=True)
