"""What a load test amounts to: figures, intervals that hold, and regressions that noise does not make."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from engine_builder.errors import BuilderError
from engine_builder.loadtest.outcomes import Outcome, Run, Targets, fell_behind, figures, ratios
from engine_builder.loadtest.outcomes import run as run_of
from engine_builder.loadtest.plan import Lengths, Planned, of_trace, rounds, synthetic
from engine_builder.loadtest.regression import share, worse
from router.replay.workload import bundled

TARGETS = Targets(0.5, 0.05)


def run(seed: int, requests: int = 400, slower: float = 1.0, errors: float = 0.0) -> Run:
    dice = Random(seed)
    made = []
    for number in range(requests):
        if dice.random() < errors:
            made.append(Outcome(number / 10, 0.0, error="refused"))
            continue
        ttft = slower * dice.lognormvariate(-1.6, 0.4)
        made.append(Outcome(number / 10, 0.0, 100, 11, ttft, ttft + slower * 10 * dice.uniform(0.02, 0.03)))
    return Run(made, requests / 10)


def test_figures_are_those_of_the_requests() -> None:
    outcomes = [
        Outcome(0.0, 0.0, 10, 11, 0.1, 0.3),
        Outcome(1.0, 0.2, 10, 11, 0.2, 0.4),
        Outcome(2.0, 0.0, 10, 11, 0.3, 0.5),
        Outcome(3.0, 0.0, 10, 11, 0.9, 1.1),
        Outcome(4.0, 0.0, error="HTTP 503"),
    ]
    found = {name: one.value for name, one in figures(Run(outcomes, 5.0), TARGETS).items()}
    assert found["ttft_p50_s"] == pytest.approx(0.25)
    assert found["itl_p50_s"] == pytest.approx(0.02)
    assert found["e2e_p99_s"] == pytest.approx(1.1, rel=0.05)
    assert (found["requests_per_s"], found["output_tokens_per_s"]) == pytest.approx((0.8, 8.8))
    assert found["goodput_per_s"] == pytest.approx(0.6), "one was late, one was refused"
    assert found["error_rate"] == pytest.approx(0.2)
    assert fell_behind(Run(outcomes, 5.0)) == (1, 0.2)


def test_what_piles_up_takes_longer_than_the_plan() -> None:
    keeps_up = [Outcome(at / 10, 0.0, 10, 10, 0.5, 1.0) for at in range(100)]
    assert run_of(keeps_up, 10).span_s == 10
    piles_up = [Outcome(at / 10, 0.0, 10, 10, 0.5, 1.0 + at / 10) for at in range(100)]
    assert run_of(piles_up, 10).span_s == pytest.approx(17.8, abs=0.2), "half as fast as they came"


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of 40 runs, the median's interval misses the true median (e^-1.6) a few times at most."""
    found = [figures(run(seed, 200), TARGETS)["ttft_p50_s"] for seed in range(40)]
    assert sum(not one.low <= 0.2019 <= one.high for one in found) <= 6
    assert all(one.high < 1.6 * one.low for one in found), "and they are not so wide that they say nothing"


def test_a_ratio_says_how_much_faster_and_how_sure_that_is() -> None:
    ratio = ratios(run(1, slower=1.2), run(2), TARGETS, paired=True)["e2e_p50_s"]
    assert 1.1 < ratio.low < 1.2 < ratio.high < 1.3
    same = ratios(run(3), run(4), TARGETS, paired=False)["e2e_p50_s"]
    assert same.low < 1 < same.high


def test_a_regression_is_certain_only_beyond_chance() -> None:
    assert [one for seed in range(10) for one in worse(run(seed), run(99), TARGETS, 0.1) if one.certain] == []
    slow = {one.figure: one for one in worse(run(1, slower=1.3), run(2), TARGETS, 0.1)}
    assert slow["e2e_p50_s"].certain
    assert slow["e2e_p50_s"].by == pytest.approx(0.3, abs=0.06)
    failing = worse(run(1, errors=0.1), run(2), TARGETS, 0.2)
    assert [(one.figure, one.certain) for one in failing] == [("error_rate", True)]
    assert worse(run(1, slower=0.7), run(2), TARGETS, 0.1) == [], "faster is no regression"


def test_arrivals_are_as_asked() -> None:
    poisson = synthetic(20, 100, "poisson", Lengths(50), Lengths.parse("5-9", "-"), 1)
    assert 1800 < len(poisson) < 2200
    gaps = [b.at_s - a.at_s for a, b in pairwise(poisson)]
    assert 0.3 < sum(gap < 0.05 * 0.5 for gap in gaps) / len(gaps) < 0.5, "of exponential gaps, 39 %"
    assert {one.output_tokens for one in poisson} == set(range(5, 10))
    even = synthetic(4, 2, "constant", Lengths(50), Lengths(5), 1)
    assert [one.at_s for one in even] == [0.25 * number for number in range(1, 8)]
    assert poisson == synthetic(20, 100, "poisson", Lengths(50), Lengths.parse("5-9", "-"), 1)


def test_a_trace_keeps_its_lengths_and_leaves_out_what_does_not_fit() -> None:
    plan = of_trace(bundled("azure"), 10.0, 60.0, 2000, seed=1)
    assert 300 < len(plan) < 900
    assert all(one.prompt_tokens + one.output_tokens <= 2000 and one.at_s < 60 for one in plan)


def test_rounds_are_the_plan_cut_in_time() -> None:
    plan = [Planned(at, 1, 1) for at in (0.0, 0.9, 1.0, 3.5)]
    assert [[one.at_s for one in part] for part in rounds(plan, 4, 4.0)] == [[0.0, 0.9], [0.0], [], [0.5]]


@pytest.mark.parametrize("text", ["", "0", "9-5", "a", "5~-1", "1-2-3"])
def test_lengths_that_make_no_sense_are_refused_by_name(text: str) -> None:
    with pytest.raises(BuilderError, match="--prompt-tokens"):
        Lengths.parse(text, "--prompt-tokens")


def test_a_share_is_told_in_per_cent_or_not() -> None:
    assert (share("10%", "-"), share("0.1", "-")) == (0.1, 0.1)
    with pytest.raises(BuilderError, match="--max-regression"):
        share("ten", "--max-regression")
