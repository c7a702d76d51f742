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
GOES_FIRST = "-1000"
"""Below the cost of pods without the annotation, which is 0."""


def leaving(kind: str, members: Sequence[Member], count: int, preferred: Sequence[str]) -> tuple[str, ...]:
    """Handles of the `count` members that go, in that order; `preferred`: as far as the kind can be told."""
    staying = [member for member in members if not member.terminating]
    if kind == "Deployment":
        wish = {handle: place for place, handle in enumerate(preferred)}
        staying.sort(key=lambda m: (m.ready, wish.get(m.handle, len(wish)), m.handle))
    else:
        staying.sort(key=lambda m: _ordinal(m.handle), reverse=True)
    return tuple(member.handle for member in staying[: max(count, 0)])


def _ordinal(handle: str) -> tuple[int, str]:
    digits = pod_of(handle).rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else -1), handle
