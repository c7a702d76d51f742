"""Watching a fleet: its screen once, or again and again on a terminal."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live

from enginehouse.connection import Connection
from enginehouse.errors import ApiError
from enginehouse.fleet_look import FleetLook, look
from enginehouse.fleet_view import screen


async def once(connection: Connection, console: Console, every_s: float) -> None:
    """Print it, after two looks `every_s` apart. Raises ApiError."""
    before = await look(connection)
    await asyncio.sleep(every_s)
    console.print(screen(connection.root, await look(connection), before))


async def again(connection: Connection, console: Console, every_s: float) -> None:
    """Show it until cancelled; what was seen last stays there while no gateway answers.

    Raises ApiError where the first look fails, or one is refused.
    """
    before: FleetLook | None = None
    now = await look(connection)
    with Live(screen(connection.root, now, None), console=console, screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(every_s)
            try:
                before, now = now, await look(connection)
            except ApiError as error:
                if error.status is not None and error.status != 503:
                    raise
                shown = now._replace(note=f"{error}; this is what was last seen")
                live.update(screen(connection.root, shown, before), refresh=True)
            else:
                live.update(screen(connection.root, now, before), refresh=True)
