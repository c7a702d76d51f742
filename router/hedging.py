"""Hedging: whether a second endpoint is asked because the first one has stalled. Pure.

A prefill is the most expensive thing that can be asked for twice, so a slow first token alone is no
reason: the endpoint must have stopped bringing anything to anybody, or have gone from the ready ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from router.config import HedgeConfig


class Waiting(NamedTuple):
    """An attempt without a first token, and what is known around it."""

    waited_s: float
    expected_s: float | None
    """Forecast of its first token; None: nothing is known yet."""
    ready: bool
    """Its endpoint is still one that requests are sent to."""
    moving: bool
    """Its endpoint has brought tokens to others within the time after which a first token is late."""
    busy_share: float
    """Requests in flight at the model's ready endpoints, per slot of theirs."""
    prompt_tokens: int


def stall_after_s(expected_s: float | None, config: HedgeConfig) -> float:
    """How long a first token may take before its attempt is looked at."""
    return max(config.min_wait_s, config.stall_factor * (expected_s or 0.0))


@dataclass(slots=True)
class HedgeCredit:
    """Prompt tokens that may be asked for twice: a share of those dispatched, saved up to a bound."""

    tokens: float = 0.0

    def dispatched(self, prompt_tokens: int, config: HedgeConfig) -> None:
        """A request's prompt goes to an endpoint."""
        self.tokens = min(config.max_credit_tokens, self.tokens + config.share * prompt_tokens)

    def spend(self, prompt_tokens: int) -> None:
        """A hedge begins."""
        self.tokens -= prompt_tokens


def why_not(waiting: Waiting, credit: HedgeCredit, config: HedgeConfig) -> str | None:
    """Why no second endpoint is asked now; None: one is."""
    if waiting.ready:
        if waiting.expected_s is None:
            return "no_forecast"
        if waiting.waited_s < stall_after_s(waiting.expected_s, config):
            return "not_late"
        if waiting.moving:
            return "endpoint_moves"
    elif waiting.waited_s < config.min_wait_s:
        return "not_late"
    if waiting.busy_share >= config.saturated_at:
        return "saturated"
    if waiting.prompt_tokens > credit.tokens:
        return "budget_spent"
    return None
