"""Noticing that clients left: a thread that asks Triton about every open call, as the C++ model does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Call(Protocol):
    """One Triton request in progress."""

    sender: Any

    def cancel(self) -> None:
        """Stops the engine's work for this call."""


class CancellationPoller:
    """Polls `sender.is_cancelled()` of open calls every `period_s`, and cancels each at most once."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._lock = threading.Lock()
        self._open: set[Call] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancellation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def watch(self, call: Call) -> None:
        with self._lock:
            self._open.add(call)

    def forget(self, call: Call) -> None:
        with self._lock:
            self._open.discard(call)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            with self._lock:
                calls = list(self._open)
            for call in calls:
                self._look(call)

    def _look(self, call: Call) -> None:
        try:
            gone = call.sender.is_cancelled()
        except Exception:
            log.exception("cannot ask Triton whether a call was cancelled")
            return
        if gone:
            self.forget(call)
            call.cancel()


class StatsTicker:
    """Calls `refresh` every `period_s` on a thread of its own until stopped."""

    def __init__(self, period_s: float, refresh: Callable[[], None]) -> None:
        self._period_s = period_s
        self._refresh = refresh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stats", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._refresh()
