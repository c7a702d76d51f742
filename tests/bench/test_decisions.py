"""What the benchmark of decisions times is a decision, on the prompt that it says, and has a choice."""

from __future__ import annotations

from bench.decisions import ENDPOINTS, MODEL, PROMPT_TOKENS, House, figures


def test_a_decision_goes_by_the_cache_and_is_remembered() -> None:
    """Whoever got a prompt has it whole; all who got any have the system prompt."""
    house = House(conversations=8)
    ids = house.next_prompt()
    assert len(ids) == PROMPT_TOKENS
    ask = house.ask(ids)
    chosen = house.decide(ask)
    choices = house.deciding.candidates(MODEL, house.endpoints, None, ask, house.now_s)
    cached = {choice.endpoint.name: choice.view.cached_tokens for choice in choices}
    assert cached[chosen] == PROMPT_TOKENS
    assert len(cached) == ENDPOINTS
    assert 1 < sum(tokens >= 1984 for tokens in cached.values()) < ENDPOINTS


def test_percentiles_are_of_each_clock() -> None:
    found = figures([(float(n), 1000.0 - n) for n in range(100)])
    assert found == {"cpu_p50_us": 50, "cpu_p99_us": 99, "clock_p50_us": 951, "clock_p99_us": 1000}
