"""The mailbox: what callers leave for the step thread, and which requests are in flight.

Its lock is held for moments only; nothing is called under it.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from emulator.engine.errors import EngineClosedError, InvalidRequestError, QueueFullError
from emulator.engine.generation import Generation


class Taken(NamedTuple):
    """What came since the step thread last looked."""

    arrived: list[Generation]
    cancelled: set[str]
    """Ids of requests."""


class Counts(NamedTuple):
    """Of the requests that were accepted."""

    in_flight: int
    requests: int
    input_tokens: int


class Mailbox:
    """One engine's; takes requests between `open` and `close`."""

    def __init__(self, most_queued: int | None) -> None:
        """`most_queued`: requests that may wait at once; None: any number."""
        self._most_queued = most_queued
        self._news = threading.Condition()
        self._is_open = False
        self._was_closed = False
        self._arrived: list[Generation] = []
        self._cancelled: set[str] = set()
        self._in_flight: set[str] = set()
        self._queued = 0
        self._requests = 0
        self._input_tokens = 0

    def open(self) -> None:
        """Take requests from now on, unless it was closed: that is for good."""
        with self._news:
            self._is_open = not self._was_closed

    def close(self) -> None:
        """Take no more, and end the step thread's rest."""
        with self._news:
            self._is_open, self._was_closed = False, True
            self._news.notify_all()

    def put(self, generation: Generation) -> None:
        """Leave a request. Raises EngineClosedError, InvalidRequestError or QueueFullError."""
        request = generation.request
        with self._news:
            if not self._is_open:
                raise EngineClosedError("the engine is not running")
            if request.request_id in self._in_flight:
                raise InvalidRequestError(f"request_id {request.request_id!r} is in flight already")
            if self._most_queued is not None and self._queued >= self._most_queued:
                raise QueueFullError(self._most_queued)
            self._in_flight.add(request.request_id)
            self._queued += 1
            self._requests += 1
            self._input_tokens += len(request.input_ids)
            self._arrived.append(generation)
            self._news.notify()

    def cancel(self, request_id: str) -> None:
        """Leave word that a request is not wanted any more; an unknown id is no error."""
        with self._news:
            if request_id in self._in_flight:
                self._cancelled.add(request_id)
                self._news.notify()

    def take(self) -> Taken:
        """Everything that was left."""
        with self._news:
            taken = Taken(self._arrived, self._cancelled)
            self._arrived, self._cancelled = [], set()
            return taken

    def rest(self, at_most_s: float) -> None:
        """Wait for news; while something is in flight `at_most_s`."""
        with self._news:
            if not self._arrived and not self._cancelled and self._is_open:
                self._news.wait(at_most_s if self._in_flight else None)

    def ended(self, request_id: str) -> None:
        """The request is over: its id may be used again."""
        with self._news:
            self._in_flight.discard(request_id)
            self._cancelled.discard(request_id)

    def waiting(self, requests: int) -> None:
        """So many of those taken wait for their first step."""
        with self._news:
            self._queued = requests + len(self._arrived)

    def counts(self) -> Counts:
        """As of now."""
        with self._news:
            return Counts(len(self._in_flight), self._requests, self._input_tokens)
