"""`enginehouse top`."""

from __future__ import annotations

from typing import Annotated

import typer

from enginehouse.commands.options import Key, StateDirectory, Url


def top(
    every: Annotated[
        float, typer.Option("--every", "-n", min=0.5, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print it and end, as it does where there is no terminal.")
    ] = False,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Show on one screen what the fleet does: replicas, load, first tokens, memory, rollouts, builds.

    Of deployments: replicas that are ready of those that are wanted, with those that start (+) and drain (-);
    load, in replicas that it keeps busy, now and as expected a cold start ahead; the mean time to first
    tokens since the look before, and how many of them were late. Ctrl-C ends it.

    Examples:

      enginehouse top

      enginehouse top --once --every 5
    """
    import asyncio

    from enginehouse.connection import locate
    from enginehouse.console import output
    from enginehouse.watching import again
    from enginehouse.watching import once as print_once

    connection, console = locate(url, key, state_dir), output()
    shown = print_once if once or not console.is_terminal else again
    asyncio.run(shown(connection, console, every))
