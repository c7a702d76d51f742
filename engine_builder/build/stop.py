"""Stop: how a build is asked to end before it is done, from another thread or a signal handler."""

from __future__ import annotations

import threading

from engine_builder.errors import BuildStoppedError


class Stop:
    """Not asked for at first; once asked, it stays so."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._why = ""
        self._between = ""

    @property
    def asked(self) -> bool:
        """Whether it is to end at once."""
        return self._event.is_set()

    def now(self, why: str) -> None:
        """End at once: a program that runs is ended too."""
        if not self._event.is_set():
            self._why = why
            self._event.set()

    def between_steps(self, why: str) -> None:
        """End when the step that runs has ended; what it made is kept."""
        self._between = why

    def check(self, *, between: bool = False) -> None:
        """Raise BuildStoppedError when it is to end here."""
        if self._event.is_set():
            raise BuildStoppedError(self._why)
        if between and self._between:
            raise BuildStoppedError(self._between)

    def wait(self, timeout_s: float) -> None:
        """Pause, no longer than until it is asked. Raises BuildStoppedError."""
        self._event.wait(timeout_s)
        self.check()
