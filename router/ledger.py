"""Ledger: what this process has in flight at every endpoint, in requests and tokens.

Owned by the event loop of one gateway process. A lease is credited at dispatch and returned exactly once,
by leaving its scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from router.breaker import CLOSED, Breaker


@dataclass(slots=True)
class EndpointLoad:
    """One endpoint as this process sees it."""

    requests: int = 0
    tokens: int = 0
    """Prompt tokens and expected output of the requests in flight."""
    breaker: Breaker = CLOSED


class Ledger:
    """Loads by endpoint name."""

    def __init__(self) -> None:
        self._loads: dict[str, EndpointLoad] = {}

    def of(self, endpoint: str) -> EndpointLoad:
        load = self._loads.get(endpoint)
        if load is None:
            load = self._loads[endpoint] = EndpointLoad()
        return load

    @contextmanager
    def lease(self, endpoint: str, tokens: int) -> Iterator[EndpointLoad]:
        """Charge one request of `tokens` for as long as the scope lasts."""
        load = self.of(endpoint)
        load.requests += 1
        load.tokens += tokens
        try:
            yield load
        finally:
            load.requests -= 1
            load.tokens -= tokens

    def retain(self, endpoints: set[str]) -> None:
        """Forget endpoints that are no more and have nothing in flight."""
        for name in self._loads.keys() - endpoints:
            if self._loads[name].requests == 0:
                del self._loads[name]

    def in_flight(self) -> int:
        """Requests under way at all endpoints."""
        return sum(load.requests for load in self._loads.values())

    def loads(self) -> dict[str, EndpointLoad]:
        """Every load, by endpoint name, for metrics and the admin API."""
        return dict(self._loads)
