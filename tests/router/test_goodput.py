"""Goodput by a card's lines, and a card out of what was timed."""

from __future__ import annotations

import datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.goodput import Ask, fit, forecast, load, most
from router.measured import Replica, Sample, Stage, card
from tests.router.test_forecast import CARD

ASK = Ask(1000, 200, 1.0, 0.03)
TODAY = datetime.date(2026, 11, 28)


def test_time_adds_up() -> None:
    """In a second, what prompts and steps take is a second; requests in decode are rate times their time."""
    found = load(CARD, ASK, 16)
    steps_per_s = found.requests_per_s * ASK.output_tokens / 16
    step_s = CARD.step_base_s + 16 * CARD.step_per_request_s
    assert found.requests_per_s * 1000 / 50_000 + steps_per_s * step_s == pytest.approx(1.0)
    assert found.requests_per_s * ASK.output_tokens * found.itl_s == pytest.approx(16)


@given(
    st.integers(1, 4000), st.integers(2, 2000), st.floats(0.03, 5), st.floats(0.005, 0.2), st.integers(1, 64)
)
def test_no_batch_within_the_targets_does_more(
    prompt: int, output: int, ttft_s: float, itl_s: float, batch: int
) -> None:
    """The search finds what trying every batch would; looser targets never mean less."""
    ask, card_ = Ask(prompt, output, ttft_s, itl_s), CARD.model_copy(update={"kv_tokens": 100_000})
    best = forecast(card_, ask).requests_per_s
    if batch <= most(card_, ask):
        found = load(card_, ask, batch)
        if found.ttft_s <= ttft_s and found.itl_s <= itl_s:
            assert found.requests_per_s <= best * 1.001
    looser = forecast(card_, ask._replace(ttft_s=2 * ttft_s, itl_s=2 * itl_s))
    assert looser.requests_per_s >= best


def test_targets_nobody_meets_mean_nothing() -> None:
    assert forecast(CARD, ASK._replace(itl_s=0.001)).requests_per_s == 0
    assert forecast(CARD, ASK._replace(ttft_s=0.001)).tokens_per_s == 0


def test_lines_through_points_never_fall() -> None:
    assert fit([(1, 3.0), (3, 7.0)]) == pytest.approx((1.0, 2.0))
    assert fit([(1, 5.0), (3, 5.0)]) == pytest.approx((5.0, 0.0))
    assert 1 < fit([(1, 5.0), (3, 1.0)]).base < 5
    assert fit([(1, 5.0), (3, 1.0)]).slope == 0
    assert 4 < fit([(2, 4.0), (2, 6.0)]).base < 6
    assert fit([(2, 4.0), (2, 6.0)]).slope == 0
    base, slope = fit([(1, 0.1), (10, 10.0), (20, 40.0)])
    assert base == 0.0
    assert 0.1 < slope < 2


def test_a_measured_card_is_the_engine_it_was_measured_on() -> None:
    """Through 5 % of noise: rates and steps within a tenth, goodput where the targets end."""
    dice = Random(3)

    def noisy(value: float) -> float:
        return value * dice.uniform(0.95, 1.05)

    alone = [Sample(n, 2, noisy(0.02 + n / 50_000), 1.0) for n in (500, 1000, 2000, 4000) for _ in range(5)]

    def stage(batch: int, prompt_tokens: int) -> Stage:
        found = load(CARD, ASK._replace(prompt_tokens=prompt_tokens), batch)
        samples = [
            Sample(prompt_tokens, 200, (ttft_s := noisy(found.ttft_s)), ttft_s + 199 * noisy(found.itl_s))
            for _ in range(20)
        ]
        took_s = found.ttft_s + 199 * found.itl_s
        return Stage(found.requests_per_s * took_s, samples)

    decoding, stages = ([stage(2**n, tokens) for n in range(7)] for tokens in (32, 1000))
    replica = Replica("h100-sxm", 2, 64, 100_000)
    made = card(alone, decoding, stages, replica, (1.0, 0.0105), TODAY)
    assert (made.source, made.gpus, made.slots, made.kv_tokens) == ("measured", 2, 64, 100_000)
    assert made.prefill_tokens_per_s == pytest.approx(50_000, rel=0.1)
    assert made.overhead_s == pytest.approx(0.02, rel=0.2)
    assert made.step_s == pytest.approx(0.006, rel=0.1)
    assert made.step_per_request_s == pytest.approx(0.0001, rel=0.1)
    assert made.goodput is not None
    wanted = forecast(CARD, ASK._replace(itl_s=0.0105))
    assert made.goodput.requests_per_s == pytest.approx(wanted.requests_per_s, rel=0.3)
    assert (made.goodput.prompt_tokens, made.goodput.output_tokens) == (1000, 200)
    assert made.goodput.tokens_per_s == pytest.approx(200 * made.goodput.requests_per_s, rel=1e-3)


def test_an_engine_too_fast_to_time_still_has_a_card() -> None:
    alone = [Sample(n, 2, 0.01, 0.02) for n in (32, 64)]
    stages = [Stage(1, [Sample(64, 2, 0.01, 0.01)])]
    made = card(alone, stages, stages, Replica("cpu", 1, 4, None), (1, 1), TODAY)
    assert made.prefill_tokens_per_s == 1_000_000
    assert made.step_s > made.step_per_request_s
