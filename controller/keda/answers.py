"""Answers: what KEDA is told of a deployment, by the registry's record of what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from model_registry.replicas import ScalingStatus
from model_registry.snapshot import Snapshot

DEPLOYMENT = "deployment"
METRIC = "enginehouse-wanted-replicas"
TARGET = 1
"""Of each replica: so the wanted number is the metric's value, whatever the number now is."""


class NoAnswerError(Exception):
    """KEDA keeps the number that it has; `str` is for its operator."""


class BadMetadataError(NoAnswerError):
    """The ScaledObject's trigger does not name a deployment."""


class UnknownDeploymentError(NoAnswerError):
    """There is no such deployment, or none that is scaled."""


class UndecidedError(NoAnswerError):
    """Nothing is known, or has been decided yet."""


def wanted_of(snapshot: Snapshot, metadata: Mapping[str, str]) -> ScalingStatus:
    """Where the deployment that a trigger names stands. Raises NoAnswerError.

    The record is the leader's; whoever has the registry's snapshot can tell it, so that KEDA may ask any
    controller, and is told the last decision while none leads.
    """
    name = metadata.get(DEPLOYMENT, "").strip()
    if not name:
        raise BadMetadataError("the trigger names no deployment; set metadata.deployment in the ScaledObject")
    if snapshot.stale:
        raise UndecidedError("this controller has not read the registry yet")
    deployments = {one.name: one for group in snapshot.deployments.values() for one in group}
    deployment = deployments.get(name)
    if deployment is None or deployment.scaling is None:
        scaled = sorted(known for known, one in deployments.items() if one.scaling is not None)
        what = "has no scaling" if deployment is not None else "is not in the registry"
        raise UnknownDeploymentError(
            f"deployment {name!r} {what}; scaled ones are: {', '.join(scaled) or 'none'}"
        )
    status = snapshot.scaling.get(name)
    if status is None:
        raise UndecidedError(f"nothing has been decided yet about deployment {name!r}")
    return status
