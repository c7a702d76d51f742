"""Trial: how many replicas a deployment of weight 0 needs for the rollout that tries it. Pure."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from model_registry.rollouts import ACTIVE, FINAL, Rollout, RolloutStatus
from model_registry.snapshot import Snapshot

_LITTLE = 1e-9


class Trial(NamedTuple):
    """What a rollout asks for."""

    replicas: int
    reason: str


NOT_TRIED = Trial(0, "its weight is 0: it serves nobody")


def trial_of(deployment: str, serving: float, snapshot: Snapshot) -> Trial:
    """`serving`: replicas of it that all requests of its model and profile would need.

    One, so that the rollout can begin; then what the next step will send it, for a step may begin at any time
    and a replica takes a while. After the last step come all requests.
    """
    for rollout in snapshot.rollouts.values():
        status = snapshot.rollout_statuses.get(rollout.name)
        active = status is not None and status.phase in ACTIVE
        if deployment != (status.candidate if status is not None and active else rollout.candidate):
            continue
        if status is not None and active:
            share = _next_share(rollout, status)
            replicas = max(1, ceil(share * serving - _LITTLE))
            return Trial(
                replicas, f"the rollout {rollout.name} may soon send it {100 * share:.3g} % of the requests"
            )
        if rollout.wanted != "abort" and (
            status is None or status.phase not in FINAL or status.run != rollout.run
        ):
            return Trial(1, f"the rollout {rollout.name} waits for it")
    return NOT_TRIED


def _next_share(rollout: Rollout, status: RolloutStatus) -> float:
    if status.phase == "shadow":  # of copies there are only as many as find room
        return rollout.steps[0].share
    following = rollout.steps[status.step + 1 :]
    return following[0].share if following else 1.0
