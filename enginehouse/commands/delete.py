"""`enginehouse delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def delete(
    kind: Annotated[
        str, typer.Argument(help="model, adapter, deployment, profile, policy, tenant or apikey.")
    ],
    name: Annotated[str, typer.Argument(help="Which one.")],
    cascade: Annotated[bool, typer.Option("--cascade", help="Delete what needs it, too.")] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Remove one object from the registry. Requests under way are not touched.

    Examples:

      enginehouse delete deployment house-chat-throughput

      enginehouse delete model house-chat --cascade
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.objects import remove

    for gone in asyncio.run(remove(locate(url, key, state_dir), kind, name, cascade)):
        typer.echo(f"{gone} deleted")
