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
    probes: int = 0
    """Probes without news."""
    successes: int = 0
    """Probes that went well since it opened."""

    def state(self, now_s: float, config: RouterConfig) -> State:
        """`half_open`: the cooldown is over, and some requests may try."""
        if self.opened_at_s is None:
            return "closed"
        return "open" if now_s - self.opened_at_s < config.breaker_cooldown_s else "half_open"

    def admits(self, now_s: float, config: RouterConfig) -> bool:
        """Whether a request may go to the endpoint; probes without news make way for one more in time."""
        if self.opened_at_s is None:
            return True
        if now_s - self.opened_at_s < config.breaker_cooldown_s:
            return False
        if self.probes < config.breaker_probes or self.probed_at_s is None:
            return True
        return now_s - self.probed_at_s >= config.breaker_cooldown_s

    def probed(self, now_s: float) -> Breaker:
        """A request goes out as a probe of a breaker that is half open."""
        return replace(self, probed_at_s=now_s, probes=self.probes + 1)

    def released(self) -> Breaker:
        """A probe ended without telling anything about the endpoint (its client left)."""
        return replace(self, probes=max(0, self.probes - 1))

    def succeeded(self, config: RouterConfig) -> Breaker:
        """A probe went well; enough of them close the breaker."""
        successes = self.successes + 1
        if successes >= config.breaker_successes:
            return CLOSED
        return replace(self, probes=max(0, self.probes - 1), successes=successes)

    def failed(self, now_s: float, config: RouterConfig) -> Breaker:
        """One more failure in a row; of a breaker that is not closed any failure opens it anew."""
        failures = self.failures + 1
        if failures >= config.breaker_failures or self.opened_at_s is not None:
            return Breaker(failures, now_s)
        return Breaker(failures)


CLOSED = Breaker()
"""Also what a success makes of a breaker that has not opened."""
