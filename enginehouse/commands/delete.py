"""`enginehouse delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def delete(
    kind: Annotated[str, typer.Argument(help="model, deployment, tenant or apikey.")],
    name: Annotated[str, typer.Argument(help="Which one.")],
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Remove one object from the registry. Requests under way are not touched.

    Example: enginehouse delete deployment house-chat-throughput
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.listing import remove

    asyncio.run(remove(locate(url, key, state_dir), kind, name))
    typer.echo(f"{kind}/{name} deleted")
