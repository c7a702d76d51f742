"""Catalogue: which actuator brings up the replicas of a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from controller.actuators.docker.pool import DockerPool
from controller.actuators.dry_run import DryRunPool
from controller.actuators.kubernetes.workload import KubernetesWorkload
from controller.actuators.port import Actuator, Workload
from controller.actuators.process import ProcessPool
from controller.actuators.triton import TritonPool
from model_registry.pools import (
    DockerActuator,
    DryRunActuator,
    KubernetesActuator,
    Pool,
    ProcessActuator,
    TritonActuator,
)


class Surroundings(NamedTuple):
    """What actuators need besides their pool."""

    registry: str
    """Its name: the mark of what they start."""
    folder: Path
    """In which pools of processes keep what runs."""
    environment: Mapping[str, str]
    """What processes inherit."""
    fence: Callable[[], int]
    """The claim's token; raises NotLeadingError where this controller may not act any more."""


def actuator_of(pool: Pool, surroundings: Surroundings) -> Actuator | Workload:
    """The pool's own; nothing happens before it is asked for something."""
    registry, folder, environment, fence = surroundings
    match pool.actuator:
        case TritonActuator():
            return TritonPool(pool, fence)
        case ProcessActuator():
            return ProcessPool(pool, registry, folder, environment, fence)
        case DockerActuator():
            return DockerPool(pool, registry, fence)
        case KubernetesActuator():
            return KubernetesWorkload(pool.actuator, fence)
        case DryRunActuator():
            return DryRunPool(pool)
