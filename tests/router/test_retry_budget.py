"""The retry budget bounds what failures add to a model's load, and the deadline what is begun in vain."""

from __future__ import annotations

import pytest

from router.config import RetryConfig
from router.retry_budget import RetryBudget, why_not

CONFIG = RetryConfig(ratio=0.2, floor=3, window_s=10)


def granted(budget: RetryBudget, now_s: float, wanted: int) -> int:
    """How many of so many retries in a row may begin."""
    count = 0
    for _ in range(wanted):
        if why_not(budget, CONFIG, now_s, None, 0) is None:
            budget.retried()
            count += 1
    return count


@pytest.mark.parametrize(("requests", "allowed"), [(0, 3), (100, 23), (1000, 203)])
def test_retries_are_a_share_of_recent_requests_and_a_floor(requests: int, allowed: int) -> None:
    budget = RetryBudget()
    for _ in range(requests):
        budget.began(5.0, CONFIG)
    assert granted(budget, 5.0, 5000) == allowed


def test_what_was_spent_comes_back_and_old_requests_count_no_more() -> None:
    """One time constant on, e^-1 of everything is left."""
    budget = RetryBudget()
    for _ in range(100):
        budget.began(0.0, CONFIG)
    assert granted(budget, 0.0, 5000) == 23
    # 3 + 20 e^-1 are allowed, 23 e^-1 still count: 1.9 retries fit
    assert granted(budget, 10.0, 5000) == 1
    assert granted(RetryBudget(requests=100, at_s=0), 1000.0, 5000) == 3


def test_the_reason_is_told() -> None:
    spent = RetryBudget(retries=3, at_s=7)
    assert why_not(spent, CONFIG, 7, None, 0) == "the model's retry budget is spent"
    late = why_not(RetryBudget(), CONFIG, 7, 8, 1.5)
    assert late == "the request's deadline leaves no time for another attempt"
    assert why_not(RetryBudget(), CONFIG, 7, 8, 0.5) is None
