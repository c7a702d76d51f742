"""Retry budget: how many retries one model's requests may make together, and whether one may begin.

A fleet that fails under load is asked for less, not for more: without a budget every request that fails
would come again, `max_attempts` times over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import exp

from router.config import RetryConfig

_FADE_S = 0.05
"""How often both fade at most: to compute a power for every request is not worth it."""


@dataclass(slots=True)
class RetryBudget:
    """Recent requests and retries of one model; both fade exponentially."""

    requests: float = 0.0
    retries: float = 0.0
    at_s: float = 0.0
    """When the two were last brought up to date."""

    def began(self, now_s: float, config: RetryConfig) -> None:
        """A request begins."""
        if now_s - self.at_s > _FADE_S:
            self._fade(now_s, config)
        self.requests += 1.0

    def allows(self, now_s: float, config: RetryConfig) -> bool:
        """Whether one more retry fits in."""
        if now_s - self.at_s > _FADE_S:
            self._fade(now_s, config)
        return self.retries + 1.0 <= config.floor + config.ratio * self.requests

    def retried(self) -> None:
        """A retry that was allowed begins."""
        self.retries += 1.0

    def _fade(self, now_s: float, config: RetryConfig) -> None:
        left = exp((self.at_s - now_s) / config.window_s)
        self.requests *= left
        self.retries *= left
        self.at_s = now_s


class RetryBudgets:
    """Those of one gateway process, by model."""

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        self._budgets: dict[str, RetryBudget] = {}

    def began(self, model: str, now_s: float) -> RetryBudget:
        """The model's, with one more request."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget()
        budget.began(now_s, self._config)
        return budget

    def retain(self, models: Collection[str]) -> None:
        """Forget models that are no more."""
        for model in self._budgets.keys() - set(models):
            del self._budgets[model]


def why_not(
    budget: RetryBudget, config: RetryConfig, now_s: float, deadline_s: float | None, needed_s: float
) -> str | None:
    """Why a retry may not begin; None: it may.

    `deadline_s`: when the whole answer is due, on the clock of `now_s`. `needed_s`: forecast of the attempt.
    """
    if deadline_s is not None and now_s + needed_s > deadline_s:
        return "the request's deadline leaves no time for another attempt"
    if not budget.allows(now_s, config):
        return "the model's retry budget is spent"
    return None
