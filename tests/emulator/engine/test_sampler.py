"""Sampling against plain-Python references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.engine import EngineRequest, SamplingParams
from emulator.engine.sampler import SamplingState, choose, draw

logit_rows = st.lists(st.integers(-6, 6), min_size=2, max_size=200)


def reference_draw(row: list[float], top_k: int, top_p: float, uniform: float) -> tuple[int, float]:
    """The chosen id, and how far `uniform` was from choosing a neighbour."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if 0 < top_k < len(row):
        order = order[:top_k]
    weights = [math.exp(row[i] - max(row)) for i in order]
    margin = 1.0
    if 0 < top_p < 1:
        total, reached, kept = sum(weights), 0.0, 0
        while reached < top_p * total and kept < len(order):
            margin = min(margin, abs(reached / total - top_p))
            reached += weights[kept]
            kept += 1
        margin = min(margin, abs(reached / total - top_p))
        order, weights = order[:kept], weights[:kept]
    elif not 0 < top_k < len(row):
        order = sorted(order)
        weights = [math.exp(row[i] - max(row)) for i in order]
    total, reached = sum(weights), 0.0
    for i, weight in zip(order, weights, strict=True):
        reached += weight
        margin = min(margin, abs(reached / total - uniform)) if i != order[-1] else margin
        if uniform * total < reached:
            return i, margin
    return order[-1], margin


@settings(max_examples=300, deadline=None)
@given(
    logit_rows,
    st.integers(0, 220),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0]),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_is_top_k_then_top_p_then_inverse_distribution(
    row: list[int], top_k: int, top_p: float, uniform: float
) -> None:
    expected, margin = reference_draw([float(value) for value in row], top_k, top_p, uniform)
    got = draw(np.array(row, dtype=np.float32), top_k, top_p, uniform)
    assert got == expected or margin < 1e-9


def test_top_p_looks_beyond_the_first_candidates() -> None:
    """In a flat distribution the last kept token lies far behind the first 64."""
    flat = np.zeros(1000, dtype=np.float32)
    assert draw(flat, 0, 0.5, 0.9999) == 499


def state(prompt: tuple[int, ...] = (0,), **fields: Any) -> SamplingState:
    sampling = fields.pop("sampling", SamplingParams(temperature=0))
    return SamplingState(EngineRequest("r", prompt, 8, sampling=sampling, **fields), list(prompt))


def one(logits: list[float], made: SamplingState) -> tuple[int, float | None]:
    (choice,) = choose(np.array([logits], dtype=np.float32), [made])
    return choice.token, choice.log_prob


def test_penalties_count_prompt_and_answer() -> None:
    """Repetition divides positive and multiplies negative logits; presence once; frequency each time."""
    logits = np.array([[2.0, -1.0, 0.5, 0.0]], dtype=np.float32)
    sampling = SamplingParams(
        temperature=0, repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.125
    )
    made = state((0, 1), sampling=sampling)
    choose(logits.copy(), [made])
    made.append(0)
    work = logits.copy()
    choose(work, [made])
    assert work[0].tolist() == [2.0 / 2 - 0.25 - 0.25, -1.0 * 2 - 0.25 - 0.125, 0.5, 0.0]


def test_temperature_comes_before_penalties() -> None:
    work = np.array([[4.0, 1.0]], dtype=np.float32)
    choose(work, [state((0,), sampling=SamplingParams(temperature=2.0, presence_penalty=0.5, seed=1))])
    assert work[0].tolist() == [1.5, 0.5]


@pytest.mark.parametrize("sampling", [SamplingParams(temperature=0), SamplingParams(temperature=3, top_k=1)])
def test_greedy_takes_the_most_likely(sampling: SamplingParams) -> None:
    assert one([0.0, 3.0, 2.9], state(sampling=sampling))[0] == 1


def test_log_prob_is_of_the_log_softmax() -> None:
    logits = [0.5, 3.0, -1.0, 2.0]
    token, log_prob = one(logits, state(return_log_probs=True))
    total = math.log(sum(math.exp(value) for value in logits))
    assert log_prob == pytest.approx(logits[token] - total, abs=1e-6)


def test_log_probs_are_of_the_whole_distribution_even_when_top_k_cuts_it() -> None:
    """Over many seeds every token left by top-k appears, each with its own log-softmax value."""
    logits = np.random.default_rng(1).normal(size=12).astype(np.float32)
    log_softmax = logits - math.log(float(np.exp(logits.astype(np.float64)).sum()))
    seen: dict[int, float] = {}
    for seed in range(200):
        made = state(sampling=SamplingParams(top_k=4, seed=seed), return_log_probs=True)
        (choice,) = choose(logits[None].copy(), [made])
        assert choice.log_prob is not None
        seen[choice.token] = choice.log_prob
    assert set(seen) == set(np.argsort(-logits)[:4].tolist())
    for token, log_prob in seen.items():
        assert log_prob == pytest.approx(float(log_softmax[token]), abs=1e-5)


def test_sampling_follows_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    made = state(sampling=SamplingParams(seed=9))
    counts = np.zeros(3)
    for _ in range(4000):
        (choice,) = choose(logits[None].copy(), [made])
        counts[choice.token] += 1
    assert counts / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_rows_do_not_influence_each_other() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(8, 50)).astype(np.float32)
    sampling = SamplingParams(temperature=1.3, top_k=20, top_p=0.9, seed=4)
    together = choose(logits.copy(), [state(sampling=sampling) for _ in range(8)])
    alone = [choose(logits[row : row + 1].copy(), [state(sampling=sampling)])[0] for row in range(8)]
    assert together == alone


def test_end_id_is_held_back_until_min_tokens() -> None:
    made = state(end_id=1, sampling=SamplingParams(temperature=0, min_tokens=1))
    assert one([0.0, 9.0, 1.0], made)[0] == 2
    made.append(2)
    assert one([0.0, 9.0, 1.0], made)[0] == 1


def test_a_bad_word_is_forbidden_only_where_it_would_be_completed() -> None:
    made = state((5, 1), bad_words=((1, 2),))
    assert one([0.0, 0.0, 9.0, 1.0, 0.0, 0.0], made)[0] == 3
    made.append(3)
    assert one([0.0, 0.0, 9.0, 1.0, 0.0, 0.0], made)[0] == 2


def test_min_p_leaves_what_is_likely_beside_the_likeliest() -> None:
    """Tokens of at least half its probability; log probabilities stay those of all."""
    logits = np.log(np.array([[0.4, 0.3, 0.19, 0.11]], dtype=np.float32))
    seen = set()
    for seed in range(100):
        made = state(sampling=SamplingParams(min_p=0.5, seed=seed), return_log_probs=True)
        (choice,) = choose(logits.copy(), [made])
        seen.add(choice.token)
        assert choice.log_prob == pytest.approx(float(logits[0, choice.token]), abs=1e-5)
    assert seen == {0, 1}
