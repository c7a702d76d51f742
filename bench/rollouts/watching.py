"""Watching: what a rollout's status said, from its begin to its end, as `enginehouse rollout` shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench.build import BenchError
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.rolling_out import Progress, progress
from enginehouse.rollout_view import one_line
from model_registry.rollouts import FINAL, RolloutStatus

POLL_S = 0.1
GONE = "gone"
"""Phase of a rollout that is in the registry no more."""


class Watching:
    """One rollout, looked at through the admin API of the first gateway that answers."""

    def __init__(self, connections: list[Connection], name: str) -> None:
        self._connections = connections
        self._name = name
        self.phase = "pending"
        self.status: RolloutStatus | None = None
        self.said: list[str] = []
        """Each line that differs from the one before it."""
        self.shares: list[float] = [0.0]
        """Shares of the candidate, likewise."""

    async def look(self) -> None:
        """Once."""
        error: CommandError | None = None
        for connection in self._connections:
            try:
                known = await progress(connection, self._name)
            except CommandError as found:
                error = found
            else:
                self._saw(known)
                return
        if self.status is not None and getattr(error, "status", None) == 404:
            self.phase = GONE
        self._say(str(error))

    def _saw(self, known: Progress) -> None:
        self.phase, self.status = known.phase, known.status
        self._say(one_line(known).partition("  ")[2])
        if known.status is not None and known.status.share != self.shares[-1]:
            self.shares.append(known.status.share)

    def _say(self, line: str) -> None:
        if not self.said or self.said[-1] != line:
            self.said.append(line)

    async def until(self, true: Callable[[], bool], what: str, within_s: float) -> None:
        """Look until it is so. Raises BenchError when it is over before, or `within_s` are over."""
        deadline_s = time.monotonic() + within_s
        while not true():
            if time.monotonic() > deadline_s or (self.over and not true()):
                raise BenchError(f"{self._name} did not show {what}; it said {self.said[-8:]}")
            await asyncio.sleep(POLL_S)
            await self.look()

    @property
    def over(self) -> bool:
        return self.phase in FINAL or self.phase == GONE

    async def to_its_end(self, within_s: float) -> None:
        """Returns when it is over, or `within_s` are."""
        deadline_s = time.monotonic() + within_s
        while not self.over and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
            await self.look()
