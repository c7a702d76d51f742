"""The search finds what does best, without measuring what cannot, and resumes from what it has seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine_builder.tuning import Budget, Done, Knob, Measured, Setting, Space, Trial, next_trial
from engine_builder.tuning.search import FINAL_WEIGHT

START = Setting((("policy", "careful"), ("slots", "8")))
SPACE = Space(
    (Knob("policy", ("careful", "bold")), Knob("slots", ("4", "8", "16"))), START, (1, 2, 4, 8, 16, 32)
)
PLENTY = Budget(200, 1e9)


def engine(rate_of: Callable[[Setting], float], knee_of: Callable[[Setting], int]) -> Callable[..., Measured]:
    """One that does `rate` requests/s for each client up to its knee, and is late beyond it."""

    def measured(trial: Trial) -> Measured:
        knee = knee_of(trial.setting)
        rate = rate_of(trial.setting) * min(trial.clients, knee)
        met = 1.0 if trial.clients <= knee else (knee / trial.clients) ** 4
        return Measured(trial, took_s=1.0, requests=100, requests_per_s=rate, met=met)

    return measured


def searched(measured: Callable[..., Measured], budget: Budget = PLENTY) -> tuple[list[Measured], Done]:
    history: list[Measured] = []
    while True:
        wanted = next_trial(history, SPACE, budget)
        if isinstance(wanted, Done):
            return history, wanted
        assert all(one.trial != wanted for one in history), "nothing is measured twice"
        history.append(measured(wanted))


BOLD = engine(lambda one: 3.0 if one.of("policy") == "bold" else 2.0, lambda one: int(one.of("slots")))


def test_it_finds_the_best_of_both_knobs_and_measures_it_again() -> None:
    history, done = searched(BOLD)
    assert done.best == Setting((("policy", "bold"), ("slots", "16")))
    assert (done.clients, done.goodput, done.confirmed) == (16, 48.0, True)
    again = [one.trial for one in history if one.trial.weight == FINAL_WEIGHT]
    assert {one.setting for one in again} > {START, done.best}
    assert len(history) < 2 * 3 * 6, "fewer than all"


def test_load_rises_from_one_client_and_stops_where_more_cannot_help() -> None:
    history, _ = searched(BOLD)
    at_start = [one.trial.clients for one in history if one.trial.setting == START]
    assert at_start[:5] == [1, 2, 4, 8, 16]
    assert 32 not in at_start


def test_a_setting_that_cannot_be_better_is_measured_under_one_load() -> None:
    worse = engine(lambda one: 0.2 if one.of("policy") == "bold" else 2.0, lambda _: 8)
    history, done = searched(worse)
    assert done.best == START
    assert done.reason == "nothing else does better"
    assert [one.trial.clients for one in history if one.trial.setting.of("policy") == "bold"] == [8]
    assert all(one.trial.weight == 1 for one in history), "there was nothing to measure again"


def test_luck_is_not_taken_for_the_best() -> None:
    """A setting that did well once, and not when measured again beside the start."""

    def lucky(trial: Trial) -> Measured:
        found = BOLD(trial._replace(setting=START))._replace(trial=trial)
        once = trial.setting.of("policy") == "bold" and trial.weight == 1
        return found._replace(requests_per_s=found.requests_per_s * (1.2 if once else 1.0))

    _, done = searched(lucky)
    assert (done.best, done.confirmed) == (START, True)
    assert done.reason.endswith("what was ahead at first was not when it was measured again")


def test_a_setting_that_does_not_run_is_left_alone() -> None:
    def failing(trial: Trial) -> Measured:
        if trial.setting.of("policy") == "bold":
            return Measured(trial, 1.0, error="the server refused it")
        return BOLD(trial)

    history, done = searched(failing)
    assert done.best == Setting((("policy", "careful"), ("slots", "16")))
    tried = [one.trial.setting for one in history if one.error]
    assert len(tried) == len(set(tried))


def test_any_beginning_of_a_history_goes_on_as_it_did() -> None:
    history, done = searched(BOLD)
    for length, one in enumerate(history):
        assert next_trial(history[:length], SPACE, PLENTY) == one.trial
    assert next_trial(history, SPACE, PLENTY) == done


@pytest.mark.parametrize(("budget", "said"), [(Budget(9, 1e9), "9 trials"), (Budget(99, 9.0), "9 s")])
def test_a_budget_ends_it_with_the_best_so_far(budget: Budget, said: str) -> None:
    history, done = searched(BOLD, budget)
    assert len(history) == 9
    assert said in done.reason
    assert done.goodput == max(one.goodput for one in history)
    assert not done.confirmed, "what is better than the start was seen once only"


def test_without_a_knob_there_is_only_load_to_measure() -> None:
    space = Space((), Setting(()), (1, 2))
    first = next_trial([], space, PLENTY)
    assert first == Trial(Setting(()), 1)
    history = [Measured(Trial(Setting(()), load), 1.0, 9, load, 1, 1.0) for load in (1, 2)]
    found = next_trial(history, space, PLENTY)
    assert isinstance(found, Done)
    assert (found.clients, found.confirmed) == (2, True)
