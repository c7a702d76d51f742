"""Heartbeat: a file that a process without a port rewrites while it is well; its age tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from enginehouse.errors import SettingsError
from telemetry.lifecycle import every

PERIOD_S = 2.0


async def beat(path: Path, healthy: Callable[[], bool]) -> None:
    """Touch `path` every 2 s while `healthy`; runs for ever."""

    def touch() -> None:
        if healthy():
            path.touch()

    await every(PERIOD_S, touch)


def check(path: Path) -> None:
    """Write it once. Raises SettingsError where that cannot be done."""
    try:
        path.touch()
    except OSError as error:
        raise SettingsError(
            f"controller.alive_file {path} cannot be written: {error.strerror}",
            "name a file that this user can write, or leave controller.alive_file out",
        ) from error
