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
    probed_at_s: float | None = None
    """When the last probe went out."""

    def state(self, now_s: float, config: RouterConfig) -> State:
        """`half_open`: the cooldown is over, and one request may try."""
        if self.opened_at_s is None:
            return "closed"
        return "open" if now_s - self.opened_at_s < config.breaker_cooldown_s else "half_open"

    def admits(self, now_s: float, config: RouterConfig) -> bool:
        """Whether a request may go to the endpoint; a probe without news makes way for the next in time."""
        if self.opened_at_s is None:
            return True
        since_s = self.opened_at_s if self.probed_at_s is None else self.probed_at_s
        return now_s - since_s >= config.breaker_cooldown_s

    def probed(self, now_s: float) -> Breaker:
        """A request goes out as the probe of a breaker that is half open."""
        return replace(self, probed_at_s=now_s)

    def released(self) -> Breaker:
        """The probe ended without telling anything about the endpoint (its client left)."""
        return replace(self, probed_at_s=None)

    def failed(self, now_s: float, config: RouterConfig) -> Breaker:
        """One more failure in a row."""
        failures = self.failures + 1
        if failures >= config.breaker_failures or self.opened_at_s is not None:
            return Breaker(failures, now_s)
        return Breaker(failures)


CLOSED = Breaker()
"""Also what a success makes of any breaker."""
