"""`enginehouse restart`: the servers of a fleet, one after the other."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def restart(
    targets: Annotated[list[str], typer.Argument(help="Pools of Triton servers, or servers by their URLs.")],
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            help="Restarts one server, and ends when the old process is gone; {http}, {host} and {port} "
            "stand for what they say. Default: its pool's `recycle`.",
        ),
    ] = None,
    drain_timeout: Annotated[
        float, typer.Option("--drain-timeout", min=1, help="Seconds that requests under way may take.")
    ] = 600.0,
    ready_timeout: Annotated[
        float, typer.Option("--ready-timeout", min=1, help="Seconds until a server has to serve again.")
    ] = 900.0,
    force: Annotated[
        bool, typer.Option("--force", help="Also where a model is served nowhere else meanwhile.")
    ] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Restart servers one by one without a dropped request.

    Each is drained, restarted when nothing is under way there, and waited for until it serves what it
    served. The first trouble stops it.

    Examples:

      enginehouse restart l40s-pool

      enginehouse restart http://10.0.0.7:8000 --command "ssh {host} systemctl restart triton"
    """
    import asyncio

    from enginehouse import restarting
    from enginehouse.connection import locate
    from enginehouse.interrupted import says_what_is_left, until_done

    latest = "nothing was restarted"

    def tell(line: str) -> None:
        nonlocal latest
        latest = line
        typer.echo(line)

    async def run() -> None:
        connection = locate(url, key, state_dir)
        servers = await restarting.servers_of(connection, targets, command)
        patience = restarting.Patience(drain_timeout, ready_timeout)
        await restarting.restart(connection, servers, patience, tell, force=force)

    with says_what_is_left(lambda: latest):
        asyncio.run(until_done(run()))
