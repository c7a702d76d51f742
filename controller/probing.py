"""Probing: which endpoints are asked for an inference, when, and what their answers say of them.

A server may say that it is ready and answer nothing. Where gateways see answers none is asked; where they
see failures, or nothing for a while, and before an endpoint takes requests at all, one is.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from controller.config import ControllerConfig
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Endpoint

_IN_FLIGHT_S = 10.0
"""Without any answer for so long, one with requests in flight is suspect."""
_SLOW_PREFILL_TOKENS_PER_S = 2000.0
"""Of engines without a card: what waits there in front of a probe is taken to go no faster."""
_MOST_PATIENCE_S = 120.0
NOTHING = EndpointDemand()


class ProbeInference(Protocol):
    """`inference.probe.probe_inference`: why an inference went wrong; None: it did not."""

    def __call__(self, endpoint: Endpoint, embeds: bool, within_s: float) -> Awaitable[str | None]: ...


@dataclass(slots=True)
class Known:
    """What is known of one endpoint; times are monotonic."""

    good_s: float = -math.inf
    """Of the last answer that was seen."""
    asked_s: float = -math.inf
    """Of the last probe."""
    answers: int = 0
    failures: int = 0
    """As gateways have counted them."""
    suspect: bool = False
    """Gateways saw failures and no answer since then."""
    failed: int = 0
    """Probes in a row that failed."""
    why: str | None = None
    """What the last one said."""


def is_due(
    now_s: float, known: Known, seen: EndpointDemand, slots: int, serves: bool, config: ControllerConfig
) -> bool:
    """Whether an endpoint is to be asked now. Pure.

    Where all its slots are taken a probe would only wait: that tells nothing.
    """
    idle_s = config.infer_probe_s
    if idle_s is None:
        return False
    lately = now_s - known.asked_s < config.infer_probe_timeout_s
    if known.failed:
        return known.failed < config.unhealthy_after or not lately
    if not serves:  # where something else keeps it from serving, it is asked now and then
        return not lately
    if seen.requests >= slots:
        return False
    quiet_s = now_s - known.good_s
    return known.suspect or quiet_s >= (min(idle_s, _IN_FLIGHT_S) if seen.requests else idle_s)


def patience_s(endpoint: Endpoint, seen: EndpointDemand, config: ControllerConfig) -> float:
    """How long a probe may take: the prompts that wait at the endpoint are computed before it. Pure."""
    card = endpoint.card
    rate = _SLOW_PREFILL_TOKENS_PER_S if card is None else card.prefill_tokens_per_s
    return min(config.infer_probe_timeout_s + seen.prefill_tokens / rate, _MOST_PATIENCE_S)


class Probing:
    """Of one controller."""

    def __init__(
        self,
        probe: ProbeInference,
        config: ControllerConfig,
        gather: Callable[[], Awaitable[Demand]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`gather`: what gateways have told."""
        self._probe = probe
        self._config = config
        self._gather = gather
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._seen: dict[str, EndpointDemand] = {}

    async def hear(self, endpoints: Collection[str]) -> None:
        """Take over what gateways have seen; forget all but `endpoints`."""
        demand = await self._gather()
        self._seen = demand.endpoints
        now_s = self._clock()
        for name in self._known.keys() - set(endpoints):
            del self._known[name]
        for name, known in self._known.items():
            seen = demand.endpoints.get(name, NOTHING)
            answers = seen.ended + seen.first_tokens
            if answers > known.answers:
                known.good_s, known.suspect = now_s, False
            elif seen.failed > known.failures:
                known.suspect = True
            known.answers, known.failures = answers, seen.failed

    async def why_not(self, endpoint: Endpoint, *, embeds: bool, serves: bool) -> str | None:
        """Why an endpoint that says it is ready is not; None: it is, as far as is known.

        `serves`: it takes requests now. Others must have answered a probe before they do.
        """
        if endpoint.api_key_env is not None:
            return None  # somebody else's service, who charges for answers
        name, now_s = endpoint.name, self._clock()
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(good_s=now_s if serves else -math.inf)
        seen = self._seen.get(name, NOTHING)
        if not is_due(now_s, known, seen, endpoint.max_concurrency, serves, self._config):
            return known.why
        known.why = await self._probe(endpoint, embeds, patience_s(endpoint, seen, self._config))
        known.asked_s = self._clock()
        known.failed = 0 if known.why is None else known.failed + 1
        if known.why is None:
            known.good_s, known.suspect = known.asked_s, False
        return known.why
