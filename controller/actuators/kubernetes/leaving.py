"""Leaving: which pods go when a workload gets smaller. Pure.

A ReplicaSet (Deployment) takes first the pods that are not ready, then those of the lowest deletion cost
(`kubernetes.io/docs/concepts/workloads/controllers/replicaset`): it can be told. A StatefulSet takes the
highest ordinal, and so does a LeaderWorkerSet, whose leaders are one: theirs is the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuators.kubernetes.slices import pod_of
from controller.actuators.port import Member

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_EPOCH_S = 1_577_836_800
"""Begin of 2020: costs are 32-bit numbers."""


def goes_first(now_s: float) -> str:
    """A cost below that of pods without the annotation, which is 0, and below all that were given before.

    So a mark that an earlier leader left behind never takes a pod before the one that is meant now.
    """
    return str(_EPOCH_S - int(now_s))


def leaving_order(kind: str, members: Sequence[Member]) -> tuple[str, ...] | None:
    """Handles of those that are not going already, in the order in which they go; None: it can be told."""
    if kind == "Deployment":
        return None
    staying = [member.handle for member in members if not member.terminating]
    return tuple(sorted(staying, key=_ordinal, reverse=True))


def _ordinal(handle: str) -> tuple[int, str]:
    digits = pod_of(handle).rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else -1), handle
