"""What becomes of a rollout, case by case; every move is one that the table allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rollouts.decide import Facts, decide
from model_registry.errors import IllegalTransitionError
from model_registry.rollout_evidence.evidence import Copied, Evidence, Ratios, Served, Trials
from model_registry.rollout_evidence.store import Gathered
from model_registry.rollouts import (
    ACTIVE,
    FINAL,
    CanaryStep,
    Phase,
    Rollout,
    RolloutStatus,
    ShadowPlan,
    Wanted,
)
from model_registry.states import ROLLOUT, check_rollout

NOW = 1000.0
NAMES = {"name": "r", "model": "m", "stable": "a", "candidate": "b"}


def rollout(**more: Any) -> Rollout:
    steps = (CanaryStep(share=0.01, min_samples=5, min_s=10), CanaryStep(share=0.5, min_samples=5, min_s=10))
    return Rollout(**NAMES, **{"steps": steps, "shadow": ShadowPlan(min_samples=100, min_s=60), **more})


def status(phase: Phase, **more: Any) -> RolloutStatus:
    return RolloutStatus(**NAMES, phase=phase, **more)


def ratios(ratio: float, count: int) -> Ratios:
    found = Ratios()
    for _ in range(count):
        found.add(ratio)
    return found


def copied(count: int, *, wrong: int = 0, pace: float = 1.0) -> Copied:
    return Copied(
        Trials(count, 0), Trials(count, wrong), Trials(count, 0), 0.0,
        pace=ratios(pace, count), length=ratios(1.0, count),
    )  # fmt: skip


def gathered(age_s: float | None = 0.5, steps: dict[int, Served] | None = None, **ours: Any) -> Gathered:
    return Gathered(Evidence(0, copied(**{"count": 400, **ours}), copied(300), steps or {}), age_s)


def served(count: int, *, errors: int = 0, pace: float = 1.0) -> Served:
    return Served(Trials(count, errors), Trials(300, 0), ratios(1.0, count), ratios(pace, count))


def test_a_pending_one_waits_for_its_candidate_and_then_is_copied() -> None:
    waits = decide(rollout(), status("pending"), gathered(None), Facts(candidate_ready=False), NOW)
    assert (waits.phase, waits.reason) == ("pending", "b has no ready endpoint yet")
    refused = decide(rollout(), status("pending"), gathered(None), Facts("refused: emulated"), NOW)
    assert (refused.phase, refused.reason) == ("pending", "refused: emulated")
    begun = decide(rollout(), status("pending"), gathered(None), Facts(), NOW)
    assert (begun.phase, begun.share) == ("shadow", 0.0)
    at_once = decide(rollout(shadow=None), status("pending"), gathered(None), Facts(), NOW)
    assert (at_once.phase, at_once.step, at_once.share) == ("canary", 0, 0.01)


def test_copies_lead_to_the_first_step_once_nothing_harmful_is_left_possible() -> None:
    begun = status("shadow", since=NOW - 61)
    going = decide(rollout(), begun, gathered(), Facts(), NOW)
    assert (going.phase, going.step, going.share) == ("canary", 0, 0.01)
    early = decide(rollout(), status("shadow", since=NOW - 30), gathered(), Facts(), NOW)
    assert (early.phase, early.eta_s) == ("shadow", pytest.approx(30))
    few = decide(rollout(), begun, gathered(count=50), Facts(), NOW)
    assert (few.phase, few.reason) == ("shadow", "50 of 100 requests seen")
    unsure = decide(rollout(), begun, gathered(count=110), Facts(), NOW)
    assert unsure.phase == "shadow"
    assert unsure.reason.startswith("not yet shown harmless (")
    assert "shadow.errors" in unsure.reason


@pytest.mark.parametrize(
    ("worse", "names"), [({"wrong": 60}, "shadow.answers"), ({"pace": 1.25}, "shadow.pace")]
)
@pytest.mark.parametrize("phase", ["shadow", "canary"])
@pytest.mark.parametrize("wanted", ["run", "pause"])
def test_a_proven_regression_goes_back_at_once_also_from_a_pause(
    worse: dict[str, Any], names: str, phase: Phase, wanted: Wanted
) -> None:
    decision = decide(rollout(wanted=wanted), status(phase, since=NOW), gathered(**worse), Facts(), NOW)
    assert (decision.phase, decision.share) == ("rolled_back", 0.0)
    assert names in decision.reason


def test_steps_follow_each_other_and_the_last_needs_its_own_proof() -> None:
    first = status("canary", step=0, share=0.01, since=NOW - 11)
    few = decide(rollout(), first, gathered(steps={0: served(5)}), Facts(), NOW)
    assert few.step == 0, "half is many"
    assert few.reason.startswith("not yet shown harmless (")
    assert "of the proof): canary." in few.reason
    going = decide(rollout(), first, gathered(steps={0: served(20)}), Facts(), NOW)
    assert (going.phase, going.step, going.share) == ("canary", 1, 0.5)
    careful = (CanaryStep(share=0.01, min_samples=5, min_s=10), CanaryStep(share=0.05))
    soon = decide(rollout(steps=careful), first, gathered(steps={0: served(5)}), Facts(), NOW)
    assert (soon.step, soon.share) == (1, 0.05)
    last = status("canary", step=1, share=0.5, since=NOW - 11)
    unsure = decide(rollout(), last, gathered(steps={1: served(6)}), Facts(), NOW)
    assert (unsure.phase, unsure.share) == ("canary", 0.5)
    assert "canary." in unsure.reason
    done = decide(rollout(), last, gathered(steps={0: served(300), 1: served(60)}), Facts(), NOW)
    assert (done.phase, done.share) == ("promoted", 1.0)


@pytest.mark.parametrize("worse", [served(60, errors=40), served(60, pace=1.4)])
def test_clients_own_requests_may_send_it_back(worse: Served) -> None:
    step = status("canary", step=1, share=0.5, since=NOW)
    decision = decide(rollout(), step, gathered(steps={1: worse}), Facts(), NOW)
    assert decision.phase == "rolled_back"
    assert decision.reason.startswith("canary.")


@pytest.mark.parametrize("age_s", [None, 11.0])
def test_old_evidence_is_no_evidence_of_health_nor_of_harm(age_s: float | None) -> None:
    step = status("canary", step=0, share=0.01, since=0.0)
    for ours in ({}, {"wrong": 60}):
        decision = decide(rollout(), step, gathered(age_s, {0: served(50)}, **ours), Facts(), NOW)
        assert (decision.phase, decision.step, decision.share) == ("canary", 0, 0.01)
        assert decision.reason.startswith("waits for evidence")


def test_a_candidate_that_is_gone_is_waited_for_and_then_left() -> None:
    step = status("canary", step=0, share=0.01, since=0.0)
    gone = Facts(candidate_ready=False)
    waits = decide(rollout(), step, gathered(), gone, NOW)
    assert (waits.phase, waits.unready_since) == ("canary", NOW)
    long_gone = step.model_copy(update={"unready_since": NOW - 31})
    assert decide(rollout(), long_gone, gathered(), gone, NOW).phase == "rolled_back"
    back = decide(rollout(), long_gone, gathered(), Facts(), NOW)
    assert (back.phase, back.unready_since) == ("canary", None)


@pytest.mark.parametrize(
    "before",
    [
        status("pending"),
        status("shadow", since=NOW - 61),
        status("canary", step=1, share=0.5, since=NOW - 11),
    ],
    ids=lambda before: before.phase,
)
def test_without_the_stable_one_nothing_moves(before: RolloutStatus) -> None:
    """Neither on, since there is nothing to compare with, nor back, since nobody is there to serve."""
    away = Facts(stable_ready=False)
    for ours in ({}, {"wrong": 60}):
        found = gathered(steps={0: served(300), 1: served(60)}, **ours)
        stays = decide(rollout(), before, found, away, NOW)
        assert (stays.phase, stays.step, stays.share) == (before.phase, before.step, before.share)
        assert stays.reason.startswith("a has no ready endpoint")
        moves = decide(rollout(), before, found, Facts(), NOW)
        assert (moves.phase, moves.step) != (before.phase, before.step)
    assert decide(rollout(wanted="promote"), before, gathered(), away, NOW).phase == "promoted"
    if before.phase != "pending":
        assert (
            decide(rollout(), before, gathered(), Facts("refused", True, False), NOW).phase == "rolled_back"
        )


def test_going_back_says_that_the_candidate_is_gone_too() -> None:
    gone = decide(rollout(), status("shadow"), gathered(wrong=60), Facts(candidate_ready=False), NOW)
    assert (gone.phase, gone.reason.rpartition("; ")[2]) == ("rolled_back", "b has no ready endpoint")


def test_what_an_operator_wants_happens() -> None:
    for phase in ("shadow", "canary"):
        wanted = {
            word: decide(rollout(wanted=word), status(phase, since=0.0), gathered(), Facts(), NOW)
            for word in ("pause", "promote", "abort")
        }
        assert [wanted[word].phase for word in wanted] == [phase, "promoted", "aborted"]
    assert (
        decide(rollout(wanted="abort"), status("pending"), gathered(), Facts("refused"), NOW).phase
        == "aborted"
    )


def test_one_that_has_ended_begins_anew_with_another_run_only() -> None:
    for phase in sorted(FINAL):
        assert decide(rollout(), status(phase), gathered(wrong=60), Facts(), NOW).phase == phase
        assert decide(rollout(run=2), status(phase), gathered(), Facts(), NOW).phase == "pending"


def test_other_deployments_end_it() -> None:
    changed = rollout().model_copy(update={"candidate": "c"})
    assert decide(changed, status("canary"), gathered(), Facts(), NOW).phase == "rolled_back"


def test_fewer_steps_than_it_has_come_do_not_lose_it() -> None:
    shorter = rollout(steps=(CanaryStep(share=0.5),))
    decision = decide(shorter, status("canary", step=4, share=0.5, since=NOW), gathered(), Facts(), NOW)
    assert (decision.phase, decision.step) == ("canary", 0)


@given(
    st.sampled_from(sorted(ROLLOUT)),
    st.sampled_from(["run", "pause", "promote", "abort"]),
    st.sampled_from([None, 0.5, 100.0]),
    st.booleans(),
    st.sampled_from([None, "refused"]),
    st.integers(0, 1),
    st.integers(0, 400),
    st.sampled_from([0.0, NOW]),
)
def test_only_moves_of_the_table_and_shares_of_the_phase(
    phase: Phase,
    wanted: Wanted,
    age_s: float | None,
    ready: bool,
    refusal: str | None,
    step: int,
    wrong: int,
    since: float,
) -> None:
    before = status(phase, step=step, share=(0.01, 0.5)[step] if phase == "canary" else 0.0, since=since)
    decision = decide(
        rollout(wanted=wanted), before, gathered(age_s, wrong=wrong), Facts(refusal, ready), NOW
    )
    check_rollout("r", phase, decision.phase)
    assert decision.reason or phase in FINAL
    if decision.phase in {"pending", "shadow", "rolled_back", "aborted"} and phase in ACTIVE:
        assert decision.share == 0.0


def test_a_move_that_the_table_lacks_is_refused() -> None:
    with pytest.raises(IllegalTransitionError, match="rolled_back"):
        check_rollout("r", "rolled_back", "canary")
