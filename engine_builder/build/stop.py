"""Stop: how a build is asked to end before it is done, from another thread or a signal handler."""

from __future__ import annotations

import time

from engine_builder.errors import BuildStoppedError


class Stop:
    """Not asked for at first; once asked, it stays so.

    Has no lock: a signal handler that runs while its own thread holds one would wait for ever.
    """

    def __init__(self) -> None:
        self._why = ""
        self._between = ""

    def now(self, why: str) -> None:
        """End at once: a program that runs is ended too. The first reason stands."""
        self._why = self._why or why

    def between_steps(self, why: str) -> None:
        """End when the step that runs has ended; what it made is kept."""
        self._between = why

    def check(self, *, between: bool = False) -> None:
        """Raise BuildStoppedError when it is to end here."""
        if self._why:
            raise BuildStoppedError(self._why)
        if between and self._between:
            raise BuildStoppedError(self._between)

    def wait(self, pause_s: float) -> None:
        """Pause. Raises BuildStoppedError when it is to end after that."""
        time.sleep(pause_s)
        self.check()
