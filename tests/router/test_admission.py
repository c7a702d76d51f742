"""Admission's verdicts, and the drain rate that they are told by."""

from __future__ import annotations

import pytest

from model_registry.knobs import Knobs
from router.admission import Drain, Standing, Verdict, admit, allowed_ttft_s, service

STRICT = Knobs(ttft_target_s=1.0, refuse_late=True, max_wait_s=10.0)
PATIENT = Knobs(ttft_target_s=1.0, max_wait_s=10.0)


def test_without_any_endpoint_it_waits() -> None:
    """Whatever else is known: the waiting room decides how long."""
    assert admit(Standing(False, False, is_full=True), STRICT, "standard") == Verdict("wait", "no_endpoint")


def test_with_room_it_goes() -> None:
    assert admit(Standing(True, True, ttft_s=0.4), STRICT, "standard")[:2] == ("dispatch", "room")


@pytest.mark.parametrize(
    ("ttft", "priority", "action"),
    [(0.9, "critical", "dispatch"), (0.9, "standard", "dispatch"), (0.9, "sheddable", "refuse"),
     (0.4, "sheddable", "dispatch"), (1.1, "critical", "refuse")],
)  # fmt: skip
def test_what_would_be_late_is_refused_at_once(ttft: float, priority: str, action: str) -> None:
    """Sheddable requests at half of the target, so that they make room before it is missed."""
    verdict = admit(Standing(True, True, ttft_s=ttft, isolated_s=0.1), STRICT, priority)  # type: ignore[arg-type]
    assert verdict.action == action
    assert verdict.predicted_s == ttft


def test_a_patient_profile_refuses_nobody_for_being_late() -> None:
    assert admit(Standing(True, False, wait_s=9.0, ttft_s=3.0), PATIENT, "sheddable").action == "wait"


def test_what_waited_and_will_wait_counts() -> None:
    """The queue in front and the time already spent in it are part of the time to first token."""
    verdict = admit(Standing(True, False, wait_s=0.5, ttft_s=0.3, waited_s=0.3), STRICT, "standard")
    assert (verdict.action, verdict.reason, verdict.retry_after_s) == ("refuse", "predicted_late", 1.0)
    verdict = admit(Standing(True, False, wait_s=7.3, ttft_s=0.3), STRICT, "standard")
    assert verdict.retry_after_s == 7.0  # 7.6 s are 6.6 s too many


def test_a_long_prompt_may_take_longer_than_the_target() -> None:
    """Twice what it takes on an idle engine; a sheddable one is not refused for its length alone."""
    assert allowed_ttft_s(STRICT, 3.0) == 6.0
    assert admit(Standing(True, True, ttft_s=5.0, isolated_s=3.0), STRICT, "critical").action == "dispatch"
    assert admit(Standing(True, True, ttft_s=3.0, isolated_s=3.0), STRICT, "sheddable").action == "dispatch"


def test_a_deadline_that_cannot_be_met_refuses_under_every_profile() -> None:
    standing = Standing(True, False, wait_s=2.0, ttft_s=0.5)
    assert admit(standing, PATIENT, "critical", deadline_in_s=2.0).reason == "predicted_late"
    assert admit(standing, PATIENT, "critical", deadline_in_s=3.0).action == "wait"


def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    """From how long the queue takes to drain; at least a second, at most ten minutes."""
    full = Standing(True, False, is_full=True, wait_s=None, drain_s=12.2)
    assert admit(full, PATIENT, "standard")[:3] == ("refuse", "queue_full", 13.0)
    assert admit(full._replace(drain_s=None), PATIENT, "standard").retry_after_s == 1.0
    assert admit(full._replace(drain_s=1e6), PATIENT, "standard").retry_after_s == 600.0


def test_the_drain_rate_follows_what_leaves() -> None:
    """1,000 tokens every 0.1 s: 5,000 tokens take half a second."""
    drain = Drain()
    drain.began(100.0)
    assert drain.seconds_for(5000, 100.0) is None
    for n in range(1, 50):
        drain.left(1000, 100.0 + 0.1 * n)
    assert drain.seconds_for(5000, 104.9) == pytest.approx(0.5, rel=0.05)


def test_a_queue_that_stands_still_predicts_longer_and_longer() -> None:
    """So that nobody is let in by a rate of the past."""
    drain = Drain()
    drain.began(0.0)
    drain.left(1000, 1.0)
    predicted = [drain.seconds_for(1000, now_s) for now_s in (1.0, 20.0, 60.0)]
    assert predicted == pytest.approx([1.0, 10.0, 50.0])


def test_output_tokens_count_twice() -> None:
    assert service(3000, 100) == 3200
