"""Service: one process of the local stack, from its start to the end of its session.

`CommandService` runs a command line; the protocol is what the supervisor needs of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from enginehouse.errors import ProcessError
from enginehouse.local.process_record import end_session

POLL_S = 0.05
LOG_TAIL_LINES = 12


class Service(Protocol):
    """One process that can be started again after it died, at the same address."""

    name: str

    @property
    def pid(self) -> int | None:
        """Its process id, which is its session too; None while it does not run."""

    async def start(self) -> None:
        """Start the process; returns at once."""

    async def ready(self) -> None:
        """Return when it serves. Raises ProcessError when it ends first or takes too long."""

    async def wait(self) -> int:
        """Return its exit status when it has ended."""

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, insist after `grace_s`; nothing that it ever started is left."""


class CommandService:
    """A command with its output in a log file.

    `probe` says whether it serves; without one it is ready as soon as it runs. `environment` is added to
    this process's own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        probe: Callable[[], Awaitable[bool]] | None = None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self._command = tuple(command)
        self._log = log
        self._environment = dict(environment or {})
        self._probe = probe
        self._ready_timeout_s = ready_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._unended: int | None = None
        """Session that may have members left. Once ended it is forgotten: its number may become another's."""

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        self._unended = self._process.pid

    async def ready(self) -> None:
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                while not await self._serves():  # noqa: ASYNC110 - another process has no event to wait for
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise ProcessError(
                f"{self.name} did not serve within {self._ready_timeout_s:g} s", self._log_says()
            ) from error

    async def _serves(self) -> bool:
        if self.pid is None:
            status = self._process.returncode if self._process else None
            raise ProcessError(f"{self.name} ended with status {status} while it started", self._log_says())
        return self._probe is None or await self._probe()

    async def wait(self) -> int:
        if self._process is None:
            raise ProcessError(f"{self.name} was never started")
        status = await self._process.wait()
        self._end_session()
        return status

    async def stop(self, grace_s: float) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._end_session()

    def _end_session(self) -> None:
        if self._unended is not None:
            end_session(self._unended)
            self._unended = None

    def _log_says(self) -> str:
        return f"the end of {self._log}:\n{log_tail(self._log)}"


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log file, indented."""
    if not log.exists():
        return "  (no output)"
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 16_384))
        text = file.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (no output)"
