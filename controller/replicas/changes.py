"""Changes: how often replicas of a deployment came to a state, by this controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from model_registry.replicas import Replica, ReplicaState


class Change(NamedTuple):
    """A state that replicas came to."""

    deployment: str
    model: str
    pool: str
    state: ReplicaState


class ChangeCounts:
    """Counts grow from the process's start on; written by its event loop, read by any thread."""

    def __init__(self) -> None:
        self._times: dict[Change, int] = {}

    def count(self, replica: Replica, state: ReplicaState) -> None:
        """`replica` has come to `state`."""
        change = Change(replica.deployment, replica.model, replica.pool, state)
        self._times[change] = self._times.get(change, 0) + 1

    def read(self) -> Mapping[Change, int]:
        """As of now."""
        return self._times.copy()
