"""Breaker: keeps requests away from an endpoint that has just failed several times in a row. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from router.config import RouterConfig

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of one endpoint's failures."""

    failures: int = 0
    opened_at_s: float | None = None
    probing: bool = False

    def state(self, now_s: float, config: RouterConfig) -> State:
        """`half_open`: the cooldown is over, and one request may try."""
        if self.opened_at_s is None:
            return "closed"
        return "open" if now_s - self.opened_at_s < config.breaker_cooldown_s else "half_open"

    def admits(self, now_s: float, config: RouterConfig) -> bool:
        """Whether a request may go to the endpoint."""
        state = self.state(now_s, config)
        return state == "closed" or (state == "half_open" and not self.probing)

    def dispatched(self, now_s: float, config: RouterConfig) -> Breaker:
        """A request goes out; while half open it is the probe."""
        return replace(self, probing=True) if self.state(now_s, config) == "half_open" else self

    def released(self) -> Breaker:
        """The request ended without telling anything about the endpoint (a client left)."""
        return replace(self, probing=False) if self.probing else self

    def succeeded(self) -> Breaker:
        return self if self == CLOSED else CLOSED

    def failed(self, now_s: float, config: RouterConfig) -> Breaker:
        failures = self.failures + 1
        if failures >= config.breaker_failures or self.opened_at_s is not None:
            return Breaker(failures, now_s)
        return Breaker(failures)


CLOSED = Breaker()
