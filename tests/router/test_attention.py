"""Attention: learned from first tokens of prompts that were alone, and counted alike everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.entities import Endpoint
from router.attention import LEAST_TOKENS, TYPICAL, Attention, weighed
from router.config import RouterConfig
from router.deciding import Deciding, Dispatched
from router.ledger import Charge
from router.policies import make
from router.policies.prefill import paces
from router.prefix_index import Belief
from router.view import Ask, EndpointView

TOKEN_S, SHARE = 40e-6, 5e-5
ENDPOINT = Endpoint(
    name="b",
    deployment="d",
    model="other",
    profile="balanced",
    lane="tensorrt_llm",
    target="t",
    http="http://b:1",
)


def took_s(uncached: int, cached: int) -> float:
    return TOKEN_S * uncached * (1 + SHARE * (cached + uncached / 2))


@pytest.mark.parametrize("share", [0.0, SHARE])
def test_share_is_learned_from_long_prompts(share: float) -> None:
    """Whole and partly cached ones, whatever a token takes; short ones say nothing."""
    attention = Attention()
    for n in range(400):
        uncached, cached = 5_000 + n * 997 % 40_000, n * 1_009 % 30_000
        ttft_s = TOKEN_S * uncached * (1 + share * (cached + uncached / 2))
        attention.saw_ttft(uncached, cached, ttft_s)
    assert attention.share == pytest.approx(share, abs=4e-6)
    attention.saw_ttft(LEAST_TOKENS - 1, 0, 1000.0)
    assert attention.share == pytest.approx(share, abs=4e-6)


def test_parts_of_a_prompt_weigh_what_it_weighs_as_a_whole() -> None:
    """In one go or in two, but for rounding."""
    whole = weighed(50_000, 0, SHARE)
    assert weighed(30_000, 0, SHARE) + weighed(20_000, 30_000, SHARE) == pytest.approx(whole, abs=2)
    assert whole == 112_500
    assert weighed(50_000, 7, 0.0) == 50_000


def test_only_prompts_that_were_alone_are_learned_from() -> None:
    deciding = Deciding(RouterConfig())
    sent = Dispatched(Charge(20_000, 20_000), 60_000, Belief(), 0.0, 0.0)
    deciding.learn_ttft("m", "a", sent, 9.0)
    assert deciding.attention("m") == TYPICAL
    for n in range(50):
        tokens = 5_000 + 900 * n
        alone = Dispatched(Charge(tokens, tokens), tokens, Belief(), 0.0, 0.0)
        deciding.learn_ttft("m", "a", alone, took_s(tokens, 0))
    assert deciding.attention("m") == pytest.approx(SHARE, rel=0.2)
    assert deciding.attention("other") == TYPICAL
    deciding.retain([ENDPOINT])
    assert deciding.attention("m") == TYPICAL


@given(
    prompt=st.integers(1, 200_000),
    cached=st.integers(0, 200_000),
    share=st.sampled_from([0.0, SHARE]),
    prefill=st.integers(0, 100_000),
)
def test_product_weighs_as_views_do(prompt: int, cached: int, share: float, prefill: int) -> None:
    """Its written out sum is the one of `uncached_tokens`, but for rounding."""
    ask = Ask(prompt, 1, attention=share)
    views = [EndpointView("a", 8, 3, prefill, cached_tokens=min(cached, prompt)), EndpointView("b", 8, 2)]
    expected = [
        (view.prefill_tokens + view.uncached_tokens(ask)) * (view.requests + 1) / (pace * view.slots)
        for view, pace in zip(views, paces(views), strict=True)
    ]
    assert make("product").costs(ask, views, 0) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    if share == 0:
        assert make("product").costs(ask, views, 0) == expected
