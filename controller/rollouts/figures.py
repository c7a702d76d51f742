"""Figures: what the evidence says of a candidate beside the stable deployment, and how surely. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.rollouts.statistics import better_than, mostly, progress, seldom, worse_than
from model_registry.rollout_evidence.evidence import Evidence, Ratios, Trials
from model_registry.rollouts import Figure, Limit, Rollout

_SHADOW_TESTS, _CANARY_TESTS, _STEP_TESTS = 6, 1, 2
"""Of alarms. Each gets an equal part of the rollout's error probability; length has two sides."""


def figures(rollout: Rollout, step: int | None, evidence: Evidence) -> tuple[Figure, ...]:
    """All that the evidence allows; `step`: of the canary, None before it."""
    found = list(_shadow(rollout, evidence)) if rollout.shadow is not None else []
    if step is not None:
        found += _canary(rollout, step, evidence)
    return tuple(found)


def _alarm_error(rollout: Rollout) -> float:
    shadow = _SHADOW_TESTS if rollout.shadow is not None else 0
    return rollout.false_alarm / (shadow + _CANARY_TESTS + _STEP_TESTS * len(rollout.steps))


def _shadow(rollout: Rollout, evidence: Evidence) -> Iterator[Figure]:
    limits, ours, theirs = rollout.limits, evidence.candidate, evidence.stable
    yield _rate(rollout, "shadow.errors", limits.errors, ours.errors, theirs.errors)
    yield _rate(rollout, "shadow.answers", limits.answers, ours.answers, theirs.answers)
    yield _rate(rollout, "shadow.finish", limits.finish, ours.finish, theirs.finish)
    yield _median(rollout, "shadow.length", limits.length, ours.length, two_sided=True)
    yield _median(rollout, "shadow.pace", limits.pace, ours.pace)
    # Told, not judged: prompts of copies are in the stable deployment's KV cache, and not in the candidate's.
    first_tokens = _median(rollout, "shadow.ttft", limits.ttft, ours.ttft)
    yield first_tokens.model_copy(update={"alarm": 0.0, "cleared": 1.0})


def _canary(rollout: Rollout, step: int, evidence: Evidence) -> Iterator[Figure]:
    """Errors of all steps together; times of this one, since each step changes the load."""
    limits, all_steps = rollout.limits, evidence.canary()
    yield _rate(rollout, "canary.errors", limits.errors, all_steps.candidate, all_steps.stable)
    here = evidence.step(step)
    yield _median(rollout, "canary.ttft", limits.ttft, here.ttft)
    yield _median(rollout, "canary.pace", limits.pace, here.pace)


def _rate(rollout: Rollout, name: str, limit: Limit, candidate: Trials, stable: Trials) -> Figure:
    return Figure(
        name=name,
        candidate=candidate.rate,
        stable=stable.rate,
        samples=candidate.of,
        stable_samples=stable.of,
        harmless=limit.harmless,
        harmful=limit.harmful,
        alarm=progress(worse_than(candidate, stable, limit.harmless), _alarm_error(rollout)),
        cleared=progress(better_than(candidate, stable, limit.harmful), rollout.false_pass),
    )


def _median(rollout: Rollout, name: str, limit: Limit, ratios: Ratios, *, two_sided: bool = False) -> Figure:
    """By signs: more than half of the ratios beyond a bound say that the median is."""
    of = ratios.count
    alarm = mostly(ratios.above(limit.harmless), of)
    cleared = seldom(ratios.above(limit.harmful), of)
    if two_sided:
        alarm = max(alarm, mostly(ratios.below(limit.harmless), of))
        cleared = min(cleared, seldom(ratios.below(limit.harmful), of))
    return Figure(
        name=name,
        candidate=ratios.quantile(0.5),
        stable=1.0 if of else None,
        p90=ratios.quantile(0.9),
        samples=of,
        harmless=limit.harmless,
        harmful=limit.harmful,
        alarm=progress(alarm, _alarm_error(rollout)),
        cleared=progress(cleared, rollout.false_pass),
    )


def told(figure: Figure) -> str:
    """In words, for a reason."""
    if figure.candidate is None:
        return f"{figure.name}: nothing seen yet"
    if figure.name.rpartition(".")[2] in ("ttft", "pace", "length"):
        seen = f"{figure.candidate:.2f} times the stable one's (median of {figure.samples})"
        return f"{figure.name} is {seen}; harmless up to {1 + figure.harmless:.2f}"
    beside = "nothing" if figure.stable is None else f"{figure.stable:.1%} of {figure.stable_samples}"
    seen = f"{figure.candidate:.1%} of {figure.samples} beside {beside}"
    return f"{figure.name}: {seen}; harmless up to {figure.harmless:.1%} more"
