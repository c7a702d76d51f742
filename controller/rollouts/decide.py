"""Decide: what becomes of a rollout, from what is known of it now. Pure.

It goes back as soon as the evidence proves a regression, goes on once it disproves one, and waits meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from controller.rollouts.figures import figures, told
from model_registry.demand.demand import LAPSES_S
from model_registry.rollout_evidence.store import Gathered
from model_registry.rollouts import FINAL, Figure, Phase, Rollout, RolloutStatus
from model_registry.states import check_rollout

FEW = 0.05
"""More of the clients than this are not served by a candidate whose times for clients are not known."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the registry says of the two deployments, and how old evidence may be."""

    refusal: str | None = None
    """Why the candidate may not be tried, by what is declared."""
    candidate_ready: bool = True
    """It has a ready endpoint."""
    stable_ready: bool = True
    """Without it there is nothing to compare with, and nothing to go back to."""
    stale_after_s: float = LAPSES_S
    """Evidence that is older says nothing of now."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the rollout is from now on, and why."""

    phase: Phase
    reason: str
    step: int = 0
    share: float = 0.0
    figures: tuple[Figure, ...] = ()
    samples: int = 0
    needed: int = 0
    eta_s: float | None = None
    unready_since: float | None = None


def decide(rollout: Rollout, status: RolloutStatus, gathered: Gathered, facts: Facts, now: float) -> Decision:
    """The next state; `now` in Unix seconds. A transition that `states.ROLLOUT` forbids cannot come of it."""
    decision = _decide(rollout, status, gathered, facts, now)
    check_rollout(rollout.name, status.phase, decision.phase)
    return decision


def _decide(
    rollout: Rollout, status: RolloutStatus, gathered: Gathered, facts: Facts, now: float
) -> Decision:
    if status.phase in FINAL:
        if rollout.run != status.run:
            return Decision("pending", f"run {rollout.run} begins")
        return Decision(status.phase, status.reason, status.step, status.share, status.figures)
    if rollout.wanted == "abort":
        return Decision("aborted", "aborted by an operator", status.step, figures=status.figures)
    if status.phase == "pending":
        return _pending(rollout, facts)
    if (rollout.model, rollout.stable, rollout.candidate) != (status.model, status.stable, status.candidate):
        reason = "its deployments were changed while it was under way; raise `run` to begin with the new ones"
        return Decision("rolled_back", reason, status.step, figures=status.figures)
    status = status.model_copy(update={"step": min(status.step, len(rollout.steps) - 1)})
    unready_since = None if facts.candidate_ready else status.unready_since or now
    here = replace(_seen(rollout, status, gathered), unready_since=unready_since)
    return _under_way(rollout, status, gathered, facts, now, here)


def _pending(rollout: Rollout, facts: Facts) -> Decision:
    if facts.refusal is not None:
        return Decision("pending", facts.refusal)
    if not facts.candidate_ready:
        return Decision("pending", f"{rollout.candidate} has no ready endpoint yet")
    if rollout.wanted == "promote":
        return Decision("promoted", "promoted by an operator, untried")
    if rollout.wanted == "pause":
        return Decision("pending", "paused by an operator")
    if not facts.stable_ready:
        return Decision("pending", _stable_away(rollout))
    if rollout.shadow is None:
        return Decision("canary", "begins without copies", 0, rollout.steps[0].share)
    return Decision("shadow", "copies of requests go to the candidate")


def _stable_away(rollout: Rollout) -> str:
    return f"{rollout.stable} has no ready endpoint, and the candidate nothing to be compared with"


def _seen(rollout: Rollout, status: RolloutStatus, gathered: Gathered) -> Decision:
    """The present state with what is known of it."""
    evidence, canary = gathered.evidence, status.phase == "canary"
    found = figures(rollout, status.step if canary else None, evidence)
    needed = 0
    if canary:
        samples, needed = evidence.step(status.step).candidate.of, rollout.steps[status.step].min_samples
    else:
        samples = evidence.candidate.errors.of
        needed = 0 if rollout.shadow is None else rollout.shadow.min_samples
    return Decision(status.phase, status.reason, status.step, status.share, found, samples, needed)


def _under_way(
    rollout: Rollout,
    status: RolloutStatus,
    gathered: Gathered,
    facts: Facts,
    now: float,
    here: Decision,
) -> Decision:
    last = len(rollout.steps) - 1
    if facts.refusal is not None:
        return replace(here, phase="rolled_back", share=0.0, reason=facts.refusal)
    if here.unready_since is not None and now - here.unready_since >= rollout.unready_s:
        reason = f"{rollout.candidate} has had no ready endpoint for {now - here.unready_since:.0f} s"
        return replace(here, phase="rolled_back", share=0.0, reason=reason)
    if rollout.wanted == "promote" and facts.candidate_ready:
        return replace(here, phase="promoted", share=1.0, reason="promoted by an operator")
    if gathered.age_s is None or gathered.age_s > facts.stale_after_s:
        age = "no gateway has reported yet" if gathered.age_s is None else f"{gathered.age_s:.0f} s old"
        return replace(here, reason=f"waits for evidence: {age}")
    unready = here.unready_since is not None
    if not facts.stable_ready and not unready:
        return replace(here, reason=_stable_away(rollout))
    proven = [figure for figure in here.figures if figure.alarm >= 1.0]
    if proven:
        also = [f"{rollout.candidate} has no ready endpoint"] if unready else []
        reason = "; ".join([*(told(figure) for figure in proven), *also])
        return replace(here, phase="rolled_back", share=0.0, reason=reason)
    if unready:
        return replace(here, reason=f"{rollout.candidate} has no ready endpoint")
    if rollout.wanted == "pause":
        return replace(here, reason="paused by an operator")
    missing, eta_s = _missing(rollout, status, here, now)
    if missing:
        return replace(here, reason=missing, eta_s=eta_s)
    if status.phase == "canary" and status.step == last:
        return replace(here, phase="promoted", share=1.0, reason="no worse in anything that was compared")
    step = 0 if status.phase == "shadow" else status.step + 1
    reason = f"no worse so far; takes {100 * rollout.steps[step].share:.3g} % of the requests"
    return Decision("canary", reason, step, rollout.steps[step].share, here.figures)


def _missing(rollout: Rollout, status: RolloutStatus, here: Decision, now: float) -> tuple[str, float | None]:
    """What the next step waits for, and about how long; "": nothing."""
    elapsed_s = max(0.0, now - status.since)
    plan = rollout.steps[status.step] if status.phase == "canary" else rollout.shadow
    min_s = 0.0 if plan is None else plan.min_s
    waits = [min_s - elapsed_s]
    why = f"{min_s:.0f} s in this phase" if waits[0] > 0 else ""
    if here.samples < here.needed:
        why = f"{here.samples} of {here.needed} requests seen"
        waits.append(elapsed_s * (here.needed / here.samples - 1) if here.samples else float("inf"))
    unproven = [one for one in _gates(rollout, status, here) if one.cleared < 1.0]
    if unproven and here.samples >= here.needed:
        least = min(unproven, key=lambda one: one.cleared)
        why = f"not yet shown harmless ({least.cleared:.0%} of the proof): {told(least)}"
    waits += [elapsed_s * (1 / one.cleared - 1) if one.cleared else float("inf") for one in unproven]
    longest_s = max(waits)
    return why, None if longest_s == float("inf") else max(0.0, longest_s)


def _gates(rollout: Rollout, status: RolloutStatus, here: Decision) -> list[Figure]:
    """The figures that must be cleared before the next step.

    What no request shows (no greedy ones, no streams) cannot be waited for.
    """
    canary = status.phase == "canary"
    if not canary:
        return [figure for figure in here.figures if figure.samples]
    seen = [figure for figure in here.figures if figure.name.startswith("canary.") and figure.samples]
    if rollout.shadow is None or status.step == len(rollout.steps) - 1:
        return seen
    if rollout.steps[status.step + 1].share > FEW:
        return [figure for figure in seen if figure.name in ("canary.pace", "canary.ttft")]
    return []
