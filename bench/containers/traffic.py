"""Short questions one after another, all the time, and how many failed since the last look."""

from __future__ import annotations

import threading
from typing import NamedTuple

from bench.containers.client import Client

PAUSE_S = 0.1


class Told(NamedTuple):
    """Of the time since the last look."""

    asked: int
    failed: int


class Traffic:
    """A thread that asks until `close`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked = self._failed = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def since(self) -> Told:
        """What happened since the last call."""
        with self._lock:
            told = Told(self._asked, self._failed)
            self._asked = self._failed = 0
        return told

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(PAUSE_S):
            answered = self._client.answers()
            with self._lock:
                self._asked += 1
                self._failed += not answered
