"""Observers: what the router tells of requests and their attempts as they go, for metrics."""

from __future__ import annotations

from typing import Protocol

from model_registry.entities import Endpoint
from router.profiles import Wish


class QueueObserver(Protocol):
    """Learns who waits, whose first token was late and who is refused."""

    def queued(self, wish: Wish, tokens: int) -> None: ...

    def unqueued(self, wish: Wish, tokens: int, waited_s: float) -> None: ...

    def first_token(self, wish: Wish, *, late: bool) -> None: ...

    def refused(self, wish: Wish, reason: str) -> None: ...


class AttemptObserver(QueueObserver, Protocol):
    """Learns how attempts went, too."""

    def attempt(self, endpoint: Endpoint, outcome: str) -> None: ...

    def retried(self, wish: Wish) -> None: ...

    def continued(self, wish: Wish) -> None: ...
