"""Ledger: what this process has in flight at every endpoint, in requests and tokens.

Owned by the event loop of one gateway process. A lease is credited at dispatch and returned exactly once,
by leaving its scope.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.breaker import CLOSED, Breaker
from telemetry.request_trace import AttemptTrace


@dataclass(slots=True)
class EndpointLoad:
    """One endpoint as this process sees it."""

    requests: int = 0
    tokens: int = 0
    """Prompt tokens and expected output of the requests in flight."""
    spare: int = 0
    """Of `requests`, those that run in spare capacity only (rows of batch jobs)."""
    breaker: Breaker = CLOSED
    probe: AttemptTrace | None = None
    """The attempt that a half-open breaker let through."""

    def proven(self) -> bool:
        """Close the breaker if its probe is being answered: that is enough, however long the answer takes."""
        if self.probe is None or self.probe.answered_ns is None:
            return False
        self.breaker, self.probe = CLOSED, None
        return True


class Lease:
    """One request's share of an endpoint's load, charged within a `with`.

    A class, since a generator's context manager costs a microsecond more on every attempt.
    """

    __slots__ = ("_load", "_tokens")

    def __init__(self, load: EndpointLoad, tokens: int) -> None:
        self._load = load
        self._tokens = tokens

    def __enter__(self) -> EndpointLoad:
        self._load.requests += 1
        self._load.tokens += self._tokens
        return self._load

    def __exit__(self, *_: object) -> None:
        self._load.requests -= 1
        self._load.tokens -= self._tokens


class SpareLease(Lease):
    """The share of a request that runs in spare capacity only."""

    __slots__ = ()

    def __enter__(self) -> EndpointLoad:
        self._load.spare += 1
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        self._load.spare -= 1
        super().__exit__()


class Ledger:
    """Loads by endpoint name."""

    def __init__(self) -> None:
        self._loads: dict[str, EndpointLoad] = {}

    def of(self, endpoint: str) -> EndpointLoad:
        load = self._loads.get(endpoint)
        if load is None:
            load = self._loads[endpoint] = EndpointLoad()
        return load

    def lease(self, endpoint: str, tokens: int) -> Lease:
        """Charge one request of `tokens` for as long as the lease's scope lasts."""
        return Lease(self.of(endpoint), tokens)

    def spare_lease(self, endpoint: str, tokens: int) -> Lease:
        """As `lease`, for a request that runs in spare capacity only."""
        return SpareLease(self.of(endpoint), tokens)

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
