"""The tests hold their error however often they are looked at, and tell what there is to tell."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rollouts.statistics import better_than, mostly, progress, seldom, worse_than
from model_registry.rollout_evidence.evidence import Trials

ERROR = 0.05
WORLDS, LOOKS, EACH = 150, 25, 12


@pytest.mark.parametrize("base", [0.0, 0.05, 0.4])
def test_a_candidate_at_the_bound_is_rarely_ever_blamed(base: float) -> None:
    """In all worlds together as often as was said at most, though each is looked at again and again."""
    draws = np.random.default_rng(7)
    blamed = 0
    for _ in range(WORLDS):
        ours, theirs = Trials(), Trials()
        for _ in range(LOOKS):
            for trials, rate in ((ours, base + 0.02), (theirs, base)):
                trials.of += EACH
                trials.found += int(draws.binomial(EACH, rate))
            if worse_than(ours, theirs, 0.02) >= log(1 / ERROR):
                blamed += 1
                break
    assert blamed <= 2 * ERROR * WORLDS


def test_what_is_there_is_found() -> None:
    assert worse_than(Trials(1000, 60), Trials(1000, 0), 0.01) > log(1000)
    assert better_than(Trials(400, 0), Trials(300, 0), 0.05) > log(100)
    assert mostly(70, 80) > log(1000)
    assert seldom(10, 80) > log(1000)


def test_nothing_is_told_of_nothing() -> None:
    for test in (worse_than, better_than):
        assert test(Trials(), Trials(), 0.01) == 0.0
    assert mostly(0, 0) == seldom(0, 0) == 0.0


def test_without_a_baseline_nobody_is_blamed() -> None:
    """How often the stable deployment differs from itself is not known: it may be as often."""
    assert worse_than(Trials(100, 40), Trials(), 0.01) < log(2)


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 300), st.integers(0, 300))
def test_no_candidate_is_both(of: int, found: int, stable_of: int, stable_found: int) -> None:
    """Worse than harmless and better than that cannot be proven at once."""
    ours, theirs = Trials(of, min(found, of)), Trials(stable_of, min(stable_found, stable_of))
    assert min(worse_than(ours, theirs, 0.1), better_than(ours, theirs, 0.1)) == 0.0
    assert 0.0 <= progress(worse_than(ours, theirs, 0.1), 0.01) <= 1.0
