"""Ledger: what this process has in flight at every endpoint, in requests and tokens.

Owned by the event loop of one gateway process. A lease is credited at dispatch and returned exactly once,
by leaving its scope.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from router.breaker import CLOSED, Breaker
from router.config import RouterConfig
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
    probes: list[AttemptTrace] = field(default_factory=list)
    """Attempts that a half-open breaker let through and that have told nothing yet."""

    def probe(self, trace: AttemptTrace, now_s: float) -> None:
        """An attempt goes out as a probe."""
        self.breaker = self.breaker.probed(now_s)
        self.probes.append(trace)

    def prove(self, config: RouterConfig) -> bool:
        """Count the probes that are being answered; whether the breaker is closed now.

        That is enough, however long their answers take.
        """
        for trace in [trace for trace in self.probes if trace.answered_ns is not None]:
            self.proven(trace, config)
        return self.breaker.opened_at_s is None

    def proven(self, trace: AttemptTrace, config: RouterConfig) -> None:
        """An attempt went well."""
        if trace in self.probes:
            self.probes.remove(trace)
            self._turn(self.breaker.succeeded(config))
        elif self.breaker.opened_at_s is None:
            self.breaker = CLOSED

    def failed(self, now_s: float, config: RouterConfig) -> None:
        """An attempt failed by the endpoint's fault."""
        self._turn(self.breaker.failed(now_s, config))

    def let_go(self, trace: AttemptTrace) -> None:
        """An attempt ends without news; if it was a probe, another may be."""
        if trace in self.probes:
            self.probes.remove(trace)
            self.breaker = self.breaker.released()

    def _turn(self, breaker: Breaker) -> None:
        self.breaker = breaker
        if breaker.probes == 0:
            self.probes.clear()


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
