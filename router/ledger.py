"""Ledger: what is in flight at every endpoint, in requests and tokens.

This process's own requests are credited at dispatch, move from prefill to decode with their first token, and
are returned exactly once, by leaving the lease's scope. What other gateways say they have there is added
while it is fresh. Owned by the event loop of one gateway process; times are of its clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from model_registry.entities import Endpoint
from router.breaker import CLOSED, Breaker
from router.config import RouterConfig
from router.forecast import Forecast
from router.view import EndpointView
from telemetry.request_trace import AttemptTrace

PROGRESS = 0.5
"""Share of an engine's forecast pace at which the prompt at its head is taken to advance. Chunks of other
prompts and decode steps come in between; guessing too much costs far more than guessing too little."""
HOPED_PROGRESS = 0.8
"""The same for `EndpointView.hoped_tokens`."""
REPORT_TTL_S = 10.0
"""How long what another gateway said counts."""


class Charge(Struct, frozen=True, gc=False):
    """What one request costs an endpoint, in tokens."""

    uncached: int
    """Of the prompt, to be computed, with what attention adds."""
    prompt: int = 0
    output: int = 0
    """Expected."""
    at_s: float | None = None
    """When it is dispatched; None: its progress is not guessed before its first token."""


class Reported(NamedTuple):
    """What another gateway had in flight at an endpoint."""

    requests: int
    prefill_tokens: int
    decode_tokens: int
    at_s: float
    """When that was so."""


@dataclass(slots=True)
class EndpointLoad:
    """One endpoint as this process sees it; the figures are its own requests'."""

    requests: int = 0
    prefill_tokens: int = 0
    """Uncached prompt tokens of the requests whose first token has not come yet, with what attention adds."""
    prompts: OrderedDict[Lease, None] = field(default_factory=OrderedDict)
    """Whose tokens those are, as they were dispatched: the first is taken to be computed now."""
    head_s: float = 0.0
    """Since when."""
    decoding: int = 0
    """Of `requests`, those past their first token."""
    decode_prompt_tokens: int = 0
    decode_output_tokens: int = 0
    """Expected of the answers of those that decode, when they are whole."""
    decode_begins_s: float = 0.0
    """Sum of the times of their first tokens."""
    spare: int = 0
    """Of `requests`, those that run in spare capacity only (rows of batch jobs)."""
    answers: int = 0
    failures: int = 0
    first_tokens: int = 0
    """Attempts that ended well, that failed by the endpoint's fault, and whose first token was seen, since it
    is known."""
    breaker: Breaker = CLOSED
    probes: list[AttemptTrace] = field(default_factory=list)
    """Attempts that a half-open breaker let through and that have told nothing yet."""
    others: dict[str, Reported] = field(default_factory=dict)
    """By gateway."""
    foretold: deque[tuple[float, Lease]] = field(default_factory=deque)
    """First tokens that nobody will see, of whole answers, and when they are due."""

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

    def catch_up(self, now_s: float) -> None:
        """Prompts whose first tokens were due by now are computed."""
        foretold = self.foretold
        while foretold and foretold[0][0] <= now_s:
            due_s, lease = foretold.popleft()
            lease.first_token(due_s)

    def computed_tokens(self, tokens_per_s: float, now_s: float, progress: float = PROGRESS) -> int:
        """Of `prefill_tokens`, those that are likely done: of the prompt at the head, at most all of it."""
        for head in self.prompts:
            return min(head.uncached, max(0, int((now_s - self.head_s) * tokens_per_s * progress)))
        return 0

    def decode_tokens(self, step_s: float, now_s: float) -> int:
        """Tokens in the KV cache of the requests that decode, each of which grows by one every `step_s`.

        Out of sums, so that a token of a stream costs nothing here.
        """
        if self.decoding == 0:
            return 0
        grown = int((self.decoding * now_s - self.decode_begins_s) / step_s)
        most = self.decode_output_tokens
        return self.decode_prompt_tokens + (most if grown > most else max(0, grown))

    def view(
        self,
        name: str,
        slots: int,
        weight: float,
        forecast: Forecast,
        now_s: float,
        cached_tokens: int,
        surcharge: int,
    ) -> EndpointView:
        """As `Ledger.view`."""
        if self.foretold and self.foretold[0][0] <= now_s:
            self.catch_up(now_s)
        decoding = self.decoding
        step_s = forecast.step_base_s + forecast.step_each_s * (decoding or 1)
        requests, prefill, decode, hoped, age_s = self.requests, self.prefill_tokens, 0, 0, 0.0
        if self.prompts:
            pace = forecast.prefill_tokens_per_s
            computed = self.computed_tokens(pace, now_s)
            prefill, hoped = prefill - computed, self.computed_tokens(pace, now_s, HOPED_PROGRESS) - computed
        if decoding:  # `decode_tokens`, written out: a call for each of many endpoints is what costs here
            grown, most = int((decoding * now_s - self.decode_begins_s) / step_s), self.decode_output_tokens
            decode = self.decode_prompt_tokens + (most if grown > most else grown if grown > 0 else 0)  # noqa: FURB136
        if self.others:
            for other in self.others.values():
                other_age_s = now_s - other.at_s
                if other_age_s <= REPORT_TTL_S:
                    requests += other.requests
                    prefill += other.prefill_tokens
                    decode += other.decode_tokens
                    age_s = max(age_s, other_age_s)
        return EndpointView(
            name,
            slots,
            requests,
            prefill,
            decode,
            cached_tokens,
            forecast.prefill_tokens_per_s,
            step_s,
            weight,
            surcharge,
            hoped,
            age_s,
        )


class Lease:
    """One request's share of an endpoint's load, charged within a `with`.

    A class, since a generator's context manager costs a microsecond more on every attempt.
    """

    __slots__ = ("_charge", "_load", "_over", "first_s")

    def __init__(self, load: EndpointLoad, charge: Charge) -> None:
        self._load = load
        self._charge = charge
        self.first_s: float | None = None
        """When its prompt was computed, as far as that was said."""
        self._over = False

    @property
    def uncached(self) -> int:
        """Tokens of its prompt that were to be computed."""
        return self._charge.uncached

    def __enter__(self) -> EndpointLoad:
        load, charge = self._load, self._charge
        load.requests += 1
        load.prefill_tokens += charge.uncached
        if charge.at_s is not None:
            if not load.prompts:
                load.head_s = charge.at_s
            load.prompts[self] = None
        return load

    def _leave_prompts(self, now_s: float | None) -> None:
        """The prompt is computed, or given up (`now_s` None: the next one is as far as this one was)."""
        prompts = self._load.prompts
        if self in prompts:
            if now_s is not None and next(iter(prompts)) is self:
                self._load.head_s = now_s
            del prompts[self]

    def first_token(self, now_s: float) -> None:
        """The prompt is computed. Harmless when said again, or too late."""
        if self.first_s is not None or self._over:
            return
        self.first_s = now_s
        load, charge = self._load, self._charge
        load.prefill_tokens -= charge.uncached
        self._leave_prompts(now_s)
        load.decoding += 1
        load.decode_prompt_tokens += charge.prompt
        load.decode_output_tokens += charge.output
        load.decode_begins_s += now_s

    def foretell(self, at_s: float) -> None:
        """Nobody will see the first token, which is due then: the ledger takes it to come in time."""
        self._load.foretold.append((at_s, self))

    def __exit__(self, *_: object) -> None:
        self._over = True
        load, charge = self._load, self._charge
        load.requests -= 1
        if self.first_s is None:
            load.prefill_tokens -= charge.uncached
            self._leave_prompts(None)
            return
        load.decoding -= 1
        load.decode_prompt_tokens -= charge.prompt
        load.decode_output_tokens -= charge.output
        load.decode_begins_s -= self.first_s
        if load.decoding == 0:
            load.decode_begins_s = 0.0  # a sum of floats, without what rounding left


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

    def lease(self, endpoint: str, charge: Charge) -> Lease:
        """Charge one request for as long as the lease's scope lasts."""
        return Lease(self.of(endpoint), charge)

    def spare_lease(self, endpoint: str, charge: Charge) -> Lease:
        """As `lease`, for a request that runs in spare capacity only."""
        return SpareLease(self.of(endpoint), charge)

    def view(
        self, endpoint: Endpoint, forecast: Forecast, now_s: float, cached_tokens: int = 0, surcharge: int = 0
    ) -> EndpointView:
        """What a policy is told of an endpoint, for one request; `surcharge` is in prompt tokens."""
        load, slots = self.of(endpoint.name), endpoint.max_concurrency
        return load.view(endpoint.name, slots, endpoint.weight, forecast, now_s, cached_tokens, surcharge)

    def report(self, steps_s: Mapping[str, float], now_s: float) -> dict[str, Reported]:
        """What this process has in flight, to be told to others. `steps_s`: seconds of a step by endpoint."""
        for load in self._loads.values():
            load.catch_up(now_s)
        return {
            name: Reported(
                load.requests, load.prefill_tokens, load.decode_tokens(steps_s.get(name, 1.0), now_s), now_s
            )
            for name, load in self._loads.items()
            if load.requests
        }

    def learn(self, gateway: str, reports: Mapping[str, Reported]) -> None:
        """Another gateway's report, by endpoint, in place of its last one; empty: it is gone."""
        for name, load in self._loads.items():
            if name not in reports:
                load.others.pop(gateway, None)
        for name, reported in reports.items():
            self.of(name).others[gateway] = reported

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
