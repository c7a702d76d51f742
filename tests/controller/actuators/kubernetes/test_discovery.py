"""Pods are followed by a watch that survives what API servers do to watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.actuators.kubernetes import workload as kubernetes
from controller.actuators.kubernetes.api import Api
from controller.actuators.kubernetes.slices import pod_of
from controller.actuators.kubernetes.watch import SliceWatch
from controller.actuators.kubernetes.workload import KubernetesWorkload
from controller.actuators.port import ActuatorError
from model_registry.leadership import boot_s
from tests.controller.actuators.kubernetes.cluster import NAMESPACE, Cluster
from tests.controller.actuators.kubernetes.conftest import CHAT
from tests.model_registry.conftest import eventually, until


async def ready(workload: KubernetesWorkload) -> int:
    return sum(member.ready for member in await workload.members(CHAT))


async def grown_to(cluster: Cluster, workload: KubernetesWorkload, number: int) -> None:
    """The workload has so many ready pods, and the actuator sees them."""
    cluster.replicas = number
    await cluster.settle()
    await cluster.ready()

    async def seen() -> bool:
        return await ready(workload) == number

    await eventually(seen)


def lists(cluster: Cluster) -> int:
    return sum("endpointslices" in path and "watch=1" not in path for _, path in cluster.calls)


async def test_pods_are_followed_from_birth_to_end(cluster: Cluster, workload: KubernetesWorkload) -> None:
    assert await workload.members(CHAT) == ()
    cluster.replicas = 4
    await cluster.settle()

    async def states() -> set[tuple[bool, bool]]:
        return {(member.ready, member.terminating) for member in await workload.members(CHAT)}

    async def all_are(*wanted: tuple[bool, bool]) -> None:
        async def seen() -> bool:
            return await states() == set(wanted)

        await eventually(seen)

    await all_are((False, False))
    await cluster.ready()
    await all_are((True, False))
    cluster.replicas = 1
    await cluster.settle()
    await all_are((True, False), (False, True))
    await cluster.gone()
    await all_are((True, False))
    (member,) = await workload.members(CHAT)
    assert member.server.http == f"http://{cluster.pods[pod_of(member.handle)].ip}:8000"
    assert lists(cluster) == 1, "listed once, then watched"


async def test_a_watch_that_is_cut_goes_on_from_the_last_version(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    await grown_to(cluster, workload, 2)
    await cluster.watched()
    last = cluster.version
    await cluster.drop_watches()
    await grown_to(cluster, workload, 5)
    assert lists(cluster) == 1
    assert cluster.watched_from()[1] == str(last)


async def test_a_bookmark_moves_the_version_on(cluster: Cluster, workload: KubernetesWorkload) -> None:
    await grown_to(cluster, workload, 1)
    await cluster.bookmark()
    await grown_to(cluster, workload, 2)
    await cluster.bookmark()
    marked = cluster.version
    await eventually(lambda: _cut_until_from(cluster, str(marked)))


async def _cut_until_from(cluster: Cluster, version: str) -> bool:
    await cluster.drop_watches()
    return version in cluster.watched_from()


async def test_changes_that_are_no_longer_kept_are_listed_anew(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    await grown_to(cluster, workload, 2)
    await cluster.watched()
    cluster.held.clear()
    await cluster.drop_watches()
    cluster.replicas = 7
    await cluster.settle()
    await cluster.ready()
    cluster.oldest = cluster.version
    cluster.held.set()
    await grown_to(cluster, workload, 7)
    assert lists(cluster) == 2


async def test_a_watch_refused_as_too_old_is_listed_anew(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    await grown_to(cluster, workload, 1)
    await cluster.watched()
    cluster.refuse("GET", 410, "The resourceVersion for the provided watch is too old.")
    await cluster.drop_watches()
    await until(lambda: lists(cluster) == 2)
    await grown_to(cluster, workload, 2)


async def test_a_slice_that_goes_takes_its_pods_along(cluster: Cluster, workload: KubernetesWorkload) -> None:
    await grown_to(cluster, workload, 7)
    cluster.pods = dict(list(cluster.pods.items())[:2])
    await cluster.publish()

    async def seen() -> bool:
        return await ready(workload) == 2

    await eventually(seen)


@pytest.fixture
async def impatient(cluster: Cluster, tmp_path: Path) -> AsyncIterator[SliceWatch]:
    """A watch that calls its knowledge stale after 0.2 s out of touch."""
    api = Api(cluster.kubeconfig(tmp_path), timeout_s=0.3)
    watch = SliceWatch(api, NAMESPACE, "chat", watch_s=1, stale_after_s=0.2)
    yield watch
    await watch.close()
    await api.close()


async def refused(watch: SliceWatch) -> str:
    try:
        await watch.slices()
    except ActuatorError as error:
        return str(error)
    return ""


async def test_what_is_stale_is_an_error_and_not_no_pods(cluster: Cluster, impatient: SliceWatch) -> None:
    cluster.replicas = 1
    await cluster.settle()
    assert len(await impatient.slices()) == 1
    await cluster.watched()
    for _ in range(50):
        cluster.refuse("ANY", 500, "etcdserver: leader changed")
    await cluster.drop_watches()
    assert "etcdserver: leader changed" in await eventually(lambda: refused(impatient))
    cluster.refusals.clear()

    async def back() -> bool:
        return await refused(impatient) == ""

    await eventually(back)
    assert len(await impatient.slices()) == 1


async def test_what_was_never_known_is_an_error(cluster: Cluster, impatient: SliceWatch) -> None:
    cluster.refuse("GET", 403, "endpointslices.discovery.k8s.io is forbidden")
    error = await refused(impatient)
    assert 'resources: ["endpointslices"], verbs: ["list"]' in error


async def test_a_watch_that_must_not_be_is_told(cluster: Cluster, impatient: SliceWatch) -> None:
    await impatient.slices()
    await cluster.watched()
    for _ in range(50):
        cluster.refuse("ANY", 403, "endpointslices.discovery.k8s.io is forbidden")
    await cluster.drop_watches()
    assert 'verbs: ["watch"]' in await eventually(lambda: refused(impatient))


async def test_closing_ends_the_watch(cluster: Cluster, impatient: SliceWatch) -> None:
    await impatient.slices()
    await cluster.watched()
    await impatient.close()
    await until(lambda: not cluster._watchers)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("watch ")]


async def test_pods_that_nobody_asks_for_any_more_are_followed_no_longer(
    cluster: Cluster, workload: KubernetesWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployments come and go for as long as a controller leads."""
    await workload.members(CHAT)
    await workload.members(CHAT)
    other = CHAT.model_copy(update={"name": "other"})
    await workload.members(other)
    assert following() == {"chat", "other"}
    later_s = boot_s() + 2 * kubernetes.UNASKED_S
    monkeypatch.setattr(kubernetes, "boot_s", lambda: later_s)
    await workload.members(other)
    assert following() == {"other"}


def following() -> set[str]:
    """Services."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return {name.rpartition("=")[2] for name in names if name.startswith("watch ")}
