"""Job: one claimed build in the thread that runs it, and what its builder says of it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine_builder.build.progress import Progress
from engine_builder.build.stop import Stop
from engine_builder.errors import ClaimLostError
from model_registry.build_jobs.entities import BuildClaim, BuildProgress, LogLine
from model_registry.build_jobs.errors import BuildClaimLostError
from model_registry.build_jobs.store import BuildStore
from model_registry.errors import RegistryUnavailableError

_log = logging.getLogger(__name__)
_LINES_KEPT = 500
_LINES_AT_ONCE = 200
_T = TypeVar("_T")


class Job:
    """An Observer whose words reach Redis with the next sign of life; belongs to one event loop.

    `progress`, `line` and `confirm` are for the thread that builds, all else for the loop.
    """

    def __init__(self, builds: BuildStore, claim: BuildClaim, lease_s: float, heartbeat_s: float) -> None:
        self.claim = claim
        self.stop = Stop()
        self.cancelled = False
        """Somebody asked for its end."""
        self.lost = False
        """Another builder has it by now."""
        self._builds = builds
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._progress: Progress | None = None
        self._lines: deque[LogLine] = deque(maxlen=_LINES_KEPT)

    # -- for the thread -----------------------------------------------------------------------------------

    def progress(self, progress: Progress) -> None:
        """Keeps the last one."""
        self._progress = progress

    def line(self, step: str, text: str) -> None:
        """Keeps the last 500 that were not yet sent; all are in the log on disk."""
        self._lines.append(LogLine(step, text))

    def confirm(self) -> None:
        """Return if this builder still has the build and may publish; waits while Redis is away.

        Raises ClaimLostError, BuildStoppedError.
        """
        asyncio.run_coroutine_threadsafe(self._confirmed(), self._loop).result()

    # -- for the loop -------------------------------------------------------------------------------------

    async def keep_beating(self) -> None:
        """Renew the claim until cancelled; stops the build when it is lost, or cancelled."""
        while True:
            try:
                await self.beat()
            except RegistryUnavailableError as error:  # nobody else can claim it either
                _log.debug("a build's sign of life waits for Redis", extra={"reason": str(error)})
            except BuildClaimLostError:
                self._lose()
                return
            await asyncio.sleep(self._heartbeat_s)

    async def beat(self) -> None:
        """One sign of life. Raises BuildClaimLostError, RegistryUnavailableError."""
        lines = [self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))]
        try:
            goes_on = await self._builds.beat(self.claim, self._lease_s, self._told(), lines)
        except RegistryUnavailableError:
            self._lines.extendleft(reversed(lines[: _LINES_KEPT - len(self._lines)]))
            raise
        if not goes_on:
            self.cancelled = True
            self.stop.now("the build was cancelled")

    async def said(self, say: Callable[[], Awaitable[_T]]) -> _T:
        """What `say` returns, said again while Redis is away; by then others may have the build."""
        while True:
            try:
                return await say()
            except RegistryUnavailableError as error:
                _log.warning("a build waits for Redis", extra={"reason": str(error)})
                await asyncio.sleep(self._heartbeat_s)

    async def _confirmed(self) -> None:
        try:
            await self.said(self.beat)
        except BuildClaimLostError as error:
            self._lose()
            raise ClaimLostError(str(error), "nothing was published; the other builder will") from error
        self.stop.check()

    def _lose(self) -> None:
        self.lost = True
        self.stop.now("another builder has the build by now")

    def _told(self) -> BuildProgress | None:
        now = self._progress
        if now is None:
            return None
        return BuildProgress(
            now.step, now.number, now.steps, now.phase, now.elapsed_s, now.step_elapsed_s, now.eta_s
        )
