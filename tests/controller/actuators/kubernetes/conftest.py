"""A cluster, and the actuator that is pointed at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.actuators.kubernetes.api import Api
from controller.actuators.kubernetes.workload import KubernetesWorkload
from model_registry.entities import Deployment, Scaling
from model_registry.pools import KubernetesActuator
from tests.controller.actuators.kubernetes.cluster import NAMESPACE, Cluster

CHAT = Deployment(name="chat", model="m", lane="openai-http", scaling=Scaling(pool="k8s", max_replicas=8))


def leads() -> int:
    """A fence that lets everything pass."""
    return 1


def settings_for(cluster: Cluster, folder: Path, **fields: object) -> KubernetesActuator:
    """Settings of a pool that reach it."""
    kinds = {
        "deployments": "Deployment",
        "statefulsets": "StatefulSet",
        "leaderworkersets": "LeaderWorkerSet",
    }
    given = {"type": "kubernetes", "namespace": NAMESPACE, "kind": kinds[cluster.plural]}
    return KubernetesActuator.model_validate({**given, "kubeconfig": cluster.kubeconfig(folder), **fields})


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster().running() as cluster:
        yield cluster


@pytest.fixture
async def workload(cluster: Cluster, tmp_path: Path) -> AsyncIterator[KubernetesWorkload]:
    settings = settings_for(cluster, tmp_path)
    workload = KubernetesWorkload(settings, leads, Api(settings.kubeconfig, timeout_s=5))
    yield workload
    await workload.close()
