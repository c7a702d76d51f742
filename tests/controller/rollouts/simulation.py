"""Simulated evidence of a rollout, decided on by the controller's own `decide`, every few seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controller.rollouts.decide import Facts, decide
from model_registry.rollout_evidence.evidence import BIN, Copied, Evidence, Ratios, Trials
from model_registry.rollout_evidence.store import Gathered
from model_registry.rollouts import ACTIVE, Rollout, RolloutStatus

PER_LOOK = 200
"""Requests between two looks."""
LOOK_S = 10.0
COPIED = 0.5
LONGEST = 2000


class Candidate(NamedTuple):
    """How it is worse than the stable deployment."""

    wrong: float = 0.0
    """Of its answers, beyond what differs anyway."""
    slower: float = 1.0
    stops_otherwise: float = 0.0
    errors: float = 0.0


class Course(NamedTuple):
    """How a rollout went."""

    phase: str
    reason: str
    exposed: float
    looks: int


def run(candidate: Candidate, seed: int, *, noise: float = 0.0, spread: float = 0.2) -> Course:
    """`noise`: share of the stable one's answers that differ from itself; `spread`: of times, in logs."""
    draws = np.random.default_rng(seed)
    rollout = Rollout(name="r", model="m", stable="a", candidate="b")
    status = RolloutStatus(name="r", model="m", stable="a", candidate="b", phase="shadow")
    evidence, looks = Evidence(0), 0
    assert rollout.shadow is not None
    while status.phase in ACTIVE and looks < LONGEST:
        looks += 1
        served = int(draws.binomial(PER_LOOK, status.share))
        evidence.requests += PER_LOOK
        evidence.exposed += served
        if status.phase == "canary":
            step = evidence.step(status.step)
            _trials(step.candidate, draws, served, candidate.errors)
            _trials(step.stable, draws, PER_LOOK - served, 0.0)
            _ratios(step.pace, draws, served, candidate.slower, 1.4 * spread)
            _ratios(step.ttft, draws, served, candidate.slower, 3 * spread)
        copied = int(draws.binomial(PER_LOOK - served, COPIED))
        to_self = int(draws.binomial(copied, rollout.shadow.self_share))
        _copies(evidence.stable, draws, to_self, Candidate(), noise, spread)
        _copies(evidence.candidate, draws, copied - to_self, candidate, noise, spread)
        now = looks * LOOK_S
        decision = decide(rollout, status, Gathered(evidence, 0.5), Facts(), now)
        moved = (decision.phase, decision.step) != (status.phase, status.step)
        changes = {"phase": decision.phase, "step": decision.step, "share": decision.share}
        changes |= {"since": now if moved else status.since, "reason": decision.reason}
        status = status.model_copy(update=changes)
    return Course(status.phase, status.reason, evidence.exposed / evidence.requests, looks)


def _copies(
    copied: Copied, draws: np.random.Generator, count: int, side: Candidate, noise: float, spread: float
) -> None:
    failed = int(draws.binomial(count, side.errors))
    copied.errors.of += count
    copied.errors.found += failed
    answered = count - failed
    _trials(copied.answers, draws, answered, min(1.0, noise + side.wrong))
    _trials(copied.finish, draws, answered, side.stops_otherwise)
    _ratios(copied.length, draws, answered, 1.0 + side.stops_otherwise, 0.001)
    _ratios(copied.pace, draws, answered, side.slower, spread)


def _trials(trials: Trials, draws: np.random.Generator, count: int, rate: float) -> None:
    trials.of += count
    trials.found += int(draws.binomial(count, rate))


def _ratios(ratios: Ratios, draws: np.random.Generator, count: int, median: float, spread: float) -> None:
    logs = draws.normal(np.log(median), spread, count)
    for at, seen in zip(*np.unique(np.floor(logs / BIN + 0.5).astype(int), return_counts=True), strict=True):
        ratios.bins[int(at)] = ratios.bins.get(int(at), 0) + int(seen)
