"""Seeded regressions are caught before 5 % of the traffic has seen them; clean candidates pass unharmed."""

from __future__ import annotations

import pytest

from tests.controller.rollouts.simulation import Candidate, run

MOST_EXPOSED = 0.05
REGRESSIONS = {
    "wrong template": Candidate(wrong=0.9),
    "stops otherwise": Candidate(stops_otherwise=0.3, wrong=0.3),
    "20 % slower": Candidate(slower=1.2),
    "5 % wrong answers": Candidate(wrong=0.05),
    "5 % errors": Candidate(errors=0.06),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_goes_back_before_many_have_seen_it(name: str) -> None:
    for seed in range(8):
        course = run(REGRESSIONS[name], seed)
        assert course.phase == "rolled_back", (seed, course)
        assert course.exposed < MOST_EXPOSED, (seed, course)


def test_wrong_answers_show_among_those_that_differ_anyway() -> None:
    """The stable deployment differs from itself in one answer of fifty, as batches change numerics."""
    for seed in range(3):
        course = run(REGRESSIONS["5 % wrong answers"], seed, noise=0.02)
        assert (course.phase, course.exposed < MOST_EXPOSED) == ("rolled_back", True), (seed, course)


def test_slowness_shows_through_times_that_scatter() -> None:
    course = run(Candidate(slower=1.2), 1, spread=0.5)
    assert (course.phase, course.exposed < MOST_EXPOSED) == ("rolled_back", True), course


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_twenty_clean_rollouts_raise_no_alarm(noise: float) -> None:
    courses = [run(Candidate(), seed, noise=noise) for seed in range(10)]
    assert [course.phase for course in courses] == ["promoted"] * 10, courses
