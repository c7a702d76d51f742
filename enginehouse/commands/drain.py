"""`enginehouse drain`: no new requests to an endpoint or a server."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def drain(
    target: Annotated[str, typer.Argument(help="An endpoint's name, or a server's URL (all its endpoints).")],
    undo: Annotated[bool, typer.Option("--undo", help="Let requests go there again.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Return when nothing is under way there any more.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Shown by `get endpoints`.")
    ] = "drained by an operator",
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that --wait waits.")] = 600.0,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Take an endpoint or a server out of service: what runs there finishes, nothing new goes there.

    It stays so until --undo, whoever leads meanwhile.

    Examples:

      enginehouse drain http://10.0.0.7:8000 --wait --reason "new driver"

      enginehouse drain house-chat@10.0.0.7:8000

      enginehouse drain http://10.0.0.7:8000 --undo
    """
    import asyncio

    from enginehouse import draining
    from enginehouse.connection import locate
    from enginehouse.interrupted import says_what_is_left

    state = "nothing was drained"

    async def run() -> None:
        nonlocal state
        connection = locate(url, key, state_dir)
        found = await draining.find(connection, target, reason)
        if undo:
            was = await draining.undo(connection, found)
            typer.echo(f"{found.what} {'takes requests again' if was else 'was not drained'}")
            return
        state = f"{found.what} may be drained; --undo ends that"
        await draining.drain(connection, found)
        state = f"{found.what} stays drained; --undo ends that"
        number = len(found.endpoints)
        typer.echo(f"{found.what} drains: {number} {'endpoint' if number == 1 else 'endpoints'}")
        if wait:
            await draining.until_empty(connection, found, timeout, typer.echo)
            typer.echo(f"{found.what}: nothing is under way there")

    with says_what_is_left(lambda: state):
        asyncio.run(run())
