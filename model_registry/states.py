"""States that may follow each other, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from model_registry.build_jobs.entities import BuildState
from model_registry.entities import EndpointState
from model_registry.errors import IllegalTransitionError
from model_registry.replicas import ReplicaState
from model_registry.rollouts import Phase

ENDPOINT: Mapping[EndpointState, frozenset[EndpointState]] = MappingProxyType(
    {
        "starting": frozenset({"ready", "unhealthy", "draining", "gone"}),
        "ready": frozenset({"unhealthy", "draining", "gone"}),
        "unhealthy": frozenset({"starting", "ready", "draining", "gone"}),
        "draining": frozenset({"gone"}),
        "gone": frozenset(),
    }
)
"""A draining endpoint never serves again under the same registration; `gone` is stored by deletion."""

REPLICA: Mapping[ReplicaState, frozenset[ReplicaState]] = MappingProxyType(
    {
        "starting": frozenset({"ready", "draining", "stopping", "failed", "gone"}),
        "ready": frozenset({"draining", "stopping", "failed", "gone"}),
        "draining": frozenset({"ready", "stopping", "gone"}),
        "stopping": frozenset({"gone"}),
        "failed": frozenset({"stopping", "gone"}),
        "gone": frozenset(),
    }
)
"""One that drains may be taken back while it is still whole; `gone` is stored by deletion."""
BUILD: Mapping[BuildState, frozenset[BuildState]] = MappingProxyType(
    {
        "queued": frozenset({"running", "failed", "cancelled"}),
        "running": frozenset({"queued", "succeeded", "failed", "cancelled"}),
        "succeeded": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
    }
)
"""A running build is queued again when its builder gives it back or dies; its scripts go by this table."""
ROLLOUT: Mapping[Phase, frozenset[Phase]] = MappingProxyType(
    {
        "pending": frozenset({"shadow", "canary", "promoted", "aborted"}),
        "shadow": frozenset({"canary", "promoted", "rolled_back", "aborted"}),
        "canary": frozenset({"promoted", "rolled_back", "aborted"}),
        "promoted": frozenset({"pending"}),
        "rolled_back": frozenset({"pending"}),
        "aborted": frozenset({"pending"}),
    }
)
"""One that has ended begins anew with another run only."""


def check_rollout(name: str, present: Phase, wanted: Phase) -> None:
    """Raise IllegalTransitionError unless `wanted` may follow `present`; staying put is always legal."""
    allowed = ROLLOUT[present]
    if wanted != present and wanted not in allowed:
        raise IllegalTransitionError(f"Rollout {name!r}", present, wanted, allowed)


def check_replica(name: str, present: ReplicaState, wanted: ReplicaState) -> None:
    """Raise IllegalTransitionError unless `wanted` may follow `present`; staying put is always legal."""
    allowed = REPLICA[present]
    if wanted != present and wanted not in allowed:
        raise IllegalTransitionError(f"Replica {name!r}", present, wanted, allowed)


def check_endpoint(name: str, present: EndpointState, wanted: EndpointState) -> None:
    """Raise IllegalTransitionError unless `wanted` may follow `present`; staying put is always legal."""
    allowed = ENDPOINT[present]
    if wanted != present and wanted not in allowed:
        raise IllegalTransitionError(f"Endpoint {name!r}", present, wanted, allowed)
