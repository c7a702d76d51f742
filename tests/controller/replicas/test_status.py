"""What a deployment's status tells, and when that is worth a version of the registry."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.replicas.acts import Backoff
from controller.replicas.config import ReplicasConfig
from controller.replicas.status import (
    NO_NEWS,
    News,
    backoff_after,
    is_worth_writing,
    status_of,
    worth_writing,
)
from controller.scaling.wanted import Wanted
from model_registry.entities import Deployment, Scaling
from model_registry.replicas import Replica, ScalingStatus

NOW = 1000.0
DEPLOYMENT = Deployment(name="d", model="m", scaling=Scaling(pool="p", max_replicas=5, cold_start_s=60))


def starting(created: float) -> Replica:
    return Replica(name=f"d.{created:.0f}", deployment="d", model="m", pool="p", created=created)


def status(
    *replicas: Replica,
    wanted: int | None = 1,
    news: News = NO_NEWS,
    before: ScalingStatus | None = None,
    held_up: str | None = None,
    reason: str = "load",
) -> ScalingStatus:
    said = None if wanted is None else Wanted(wanted, reason)
    return status_of(DEPLOYMENT, said, replicas, news, before, Backoff(), held_up, NOW)


def test_the_next_replica_is_expected_by_the_cold_start_that_was_learned() -> None:
    """By the deployment's guess before; one that is late is given a part of it more."""
    assert status().expected_at is None
    assert status(starting(990), starting(980)).expected_at == 1040
    learned = status(news=News(cold_starts_s=(20.0,)))
    assert learned.cold_start_s == 20
    assert status(starting(990), before=learned).expected_at == 1010
    assert status(starting(900), before=learned).expected_at == 1005


def test_the_latest_starts_count_most() -> None:
    before = status(news=News(cold_starts_s=(20.0,)))
    assert status(news=News(cold_starts_s=(40.0,)), before=before).cold_start_s == pytest.approx(26)


def test_what_holds_it_up_is_the_reason() -> None:
    assert status(held_up="pool 'p' is full").reason == "pool 'p' is full"


def test_without_a_decision_the_last_one_stands() -> None:
    before = status(wanted=3).model_copy(update={"since": 900.0})
    after = status(wanted=None, before=before)
    assert (after.wanted, after.reason, after.since) == (3, "load", 900.0)


def test_numbers_are_written_at_once_and_words_from_time_to_time() -> None:
    before = status(wanted=2, reason="load 1.9")
    assert is_worth_writing(None, before, 0.0)
    assert not is_worth_writing(before, before, 60.0)
    words = status(wanted=2, reason="load 1.8", before=before)
    assert not is_worth_writing(before, words, 1.0)
    assert is_worth_writing(before, words, 5.0)
    assert is_worth_writing(before, status(wanted=3, before=before), 0.0)
    assert is_worth_writing(before, status(starting(NOW), wanted=2, before=before), 0.0)


def test_figures_that_are_due_soon_are_written_with_those_that_are_due() -> None:
    """Many deployments whose figures are written one after the other would be a version each."""
    before, after = status(), status(reason="more load")
    at = [(before, after, age_s) for age_s in (1.0, 3.0, 4.9)]
    assert worth_writing(at, anyway=False) == []
    assert worth_writing(at, anyway=True) == [after, after]
    assert len(worth_writing([*at, (before, after, 5.0)], anyway=False)) == 3
    assert worth_writing([(after, after, 9.0)], anyway=True) == []


def test_each_failure_doubles_the_pause_and_a_start_that_works_ends_it() -> None:
    config = ReplicasConfig(retry_s=5, retry_limit_s=30)
    present, waits = Backoff(), []
    for _ in range(4):
        before = status().model_copy(update={"failures": present.failures, "retry_at": present.retry_at})
        present = backoff_after(before, News(failed=1), NOW, config)
        waits.append((present.retry_at or 0) - NOW)
    assert (present.failures, waits) == (4, [5, 10, 20, 30])
    assert backoff_after(status(), News(cold_starts_s=(3.0,), failed=1), NOW, config) == Backoff()


def test_replicas_of_a_scaled_deployment_can_be_named_after_it() -> None:
    """A name may have 128 characters, and theirs are longer by seven."""
    scaling = Scaling(pool="p")
    assert Deployment(name="d" * 121, model="m", scaling=scaling)
    with pytest.raises(ValidationError, match="name it in 121 characters at most"):
        Deployment(name="d" * 122, model="m", scaling=scaling)
