"""Forecasts: from a seed to what is observed, and never to nonsense."""

from __future__ import annotations

from datetime import date
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.cards import GoodputCard
from router.forecast import Forecast, Forecasts, Seed


def test_it_begins_at_the_seed() -> None:
    forecast = Forecast(Seed(10_000, 0.02, 0.01, 0.001))
    assert forecast.prefill_tokens_per_s == pytest.approx(10_000)
    assert forecast.ttft_s(5_000) == pytest.approx(0.52)
    assert (forecast.step_s(1), forecast.step_s(11)) == pytest.approx((0.01, 0.02))
    assert (forecast.ttft_age_s(5.0), forecast.itl_age_s(5.0)) == (None, None)


def test_it_finds_another_engine_out_within_a_few_dozen_requests() -> None:
    """A quarter of the speed, seen through 10 % of noise; each figure knows its age."""
    forecast, dice = Forecast(), Random(1)
    for now_s in range(64):
        tokens, batch = dice.randrange(100, 20_000), dice.randrange(1, 32)
        noise = dice.uniform(0.9, 1.1)
        forecast.saw_ttft(tokens, noise * (0.05 + tokens / 5_000), now_s)
        forecast.saw_itl(batch, noise * (0.02 + 0.001 * batch), now_s)
    assert forecast.prefill_tokens_per_s == pytest.approx(5_000, rel=0.1)
    assert forecast.ttft_s(10_000) == pytest.approx(2.05, rel=0.1)
    assert forecast.step_s(16) == pytest.approx(0.036, rel=0.1)
    assert (forecast.ttft_age_s(70), forecast.itl_age_s(70)) == (7, 7)


def test_one_load_alone_moves_the_forecast_there() -> None:
    """Chats of one length tell little of long prompts; where they are, the forecast is right."""
    forecast = Forecast()
    for now_s in range(200):
        forecast.saw_ttft(200, 0.1, now_s)
    assert forecast.ttft_s(200) == pytest.approx(0.1, rel=0.2)
    assert forecast.prefill_tokens_per_s == pytest.approx(20_000, rel=0.25)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.floats(0, 1e6), st.integers(0, 10**4), st.floats(0, 1e6)),
        max_size=50,
    )
)
def test_no_observation_makes_nonsense(seen: list[tuple[int, float, int, float]]) -> None:
    """Rates and times stay positive and finite, and more work never takes less time."""
    forecast = Forecast()
    for now_s, (tokens, ttft_s, batch, itl_s) in enumerate(seen):
        forecast.saw_ttft(tokens, ttft_s, now_s)
        forecast.saw_itl(batch, itl_s, now_s)
        assert 1 <= forecast.prefill_tokens_per_s <= 1e8
        assert 0 <= forecast.ttft_s(0) <= forecast.ttft_s(10_000) < float("inf")
        assert 0 < forecast.step_s(1) <= forecast.step_s(100) < float("inf")


def test_endpoints_have_forecasts_of_their_own() -> None:
    forecasts = Forecasts()
    forecasts.of("a").seed(Seed(prefill_tokens_per_s=1_000))
    assert forecasts.of("a").prefill_tokens_per_s == pytest.approx(1_000)
    assert forecasts.of("b").prefill_tokens_per_s == pytest.approx(20_000)
    forecasts.retain({"b"})
    assert forecasts.of("a").prefill_tokens_per_s == pytest.approx(20_000)


CARD = GoodputCard(
    source="planned",
    gpu_class="h100-sxm",
    date=date(2026, 11, 28),
    prefill_tokens_per_s=50_000,
    overhead_s=0.02,
    step_s=0.006,
    step_per_request_s=0.0001,
    slots=64,
)


def test_a_card_is_the_seed_and_a_changed_one_is_it_again() -> None:
    """What was observed stays while the card says the same, and goes with it."""
    forecasts = Forecasts()
    forecasts.adopt("a", CARD)
    forecasts.adopt("b", None)
    assert forecasts.of("a").learned(0.0)[:4] == pytest.approx((50_000, 0.02, 0.006, 0.0001))
    assert forecasts.of("b").prefill_tokens_per_s == pytest.approx(20_000)
    for now_s in range(50):
        forecasts.of("a").saw_ttft(10_000, 0.6, now_s)
    slower = forecasts.of("a").prefill_tokens_per_s
    assert slower < 40_000
    forecasts.adopt("a", CARD.model_copy(update={"about": "the same figures"}))
    assert forecasts.of("a").prefill_tokens_per_s == slower
    assert (forecasts.of("a").learned(60)[4:6], forecasts.of("a").learned(60)[6:]) == ((50, 11), (0, None))
    forecasts.adopt("a", CARD.model_copy(update={"prefill_tokens_per_s": 30_000}))
    assert forecasts.of("a").learned(60)[0] == pytest.approx(30_000)
    assert forecasts.of("a").learned(60)[4:] == (0, None, 0, None)
    forecasts.adopt("a", None)
    assert forecasts.of("a").prefill_tokens_per_s == pytest.approx(20_000)


def test_an_endpoint_that_left_begins_with_its_card_again() -> None:
    forecasts = Forecasts()
    forecasts.adopt("a", CARD)
    forecasts.retain(set())
    assert forecasts.of("a").prefill_tokens_per_s == pytest.approx(20_000)
    forecasts.adopt("a", CARD)
    assert forecasts.of("a").prefill_tokens_per_s == pytest.approx(50_000)
