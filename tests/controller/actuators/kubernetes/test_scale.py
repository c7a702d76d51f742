"""The number of a workload is set as the API wants it, and what the API refuses is told with its remedy."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from controller.actuators.kubernetes.api import Api
from controller.actuators.kubernetes.leaving import DELETION_COST, goes_first
from controller.actuators.kubernetes.workload import ATTEMPTS, KubernetesWorkload
from controller.actuators.port import ActuatorError
from controller.replicas.fence import NotLeadingError
from model_registry.pools import KubernetesActuator
from tests.controller.actuators.kubernetes.cluster import NAMESPACE, TOKEN, Cluster
from tests.controller.actuators.kubernetes.conftest import CHAT, leads, settings_for

SCALE = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/chat/scale"


async def refusal(workload: KubernetesWorkload, replicas: int = 2) -> ActuatorError:
    with pytest.raises(ActuatorError) as caught:
        await workload.scale(CHAT, replicas, ())
    return caught.value


async def test_up_down_and_to_zero(cluster: Cluster, workload: KubernetesWorkload) -> None:
    for number in (3, 1, 0, 2):
        await workload.scale(CHAT, number, ())
        assert cluster.replicas == number
    assert ("PUT", SCALE) in cluster.calls


@pytest.mark.parametrize(
    ("plural", "group"),
    [("statefulsets", "apps/v1"), ("leaderworkersets", "leaderworkerset.x-k8s.io/v1")],
)
async def test_other_kinds_by_their_own_paths(plural: str, group: str, tmp_path: Path) -> None:
    async with Cluster(plural, group).running() as cluster:
        workload = KubernetesWorkload(settings_for(cluster, tmp_path), leads)
        await workload.scale(CHAT, 3, ())
        await workload.scale(CHAT, 2, ["chat-0/uid-1"])
        await workload.close()
    assert cluster.replicas == 2
    assert not any(method == "PATCH" for method, _ in cluster.calls), "these kinds know no deletion cost"


async def test_nothing_is_written_where_the_number_is_right(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    cluster.replicas = 2
    await workload.scale(CHAT, 2, ())
    assert cluster.calls == [("GET", SCALE)]


async def test_a_change_by_somebody_else_is_read_again(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    changes = iter([7, 5])

    def interfere() -> None:
        if (number := next(changes, None)) is not None:
            cluster.replicas = number
            cluster.version += 1

    cluster.on_update = interfere
    await workload.scale(CHAT, 2, ())
    assert cluster.replicas == 2
    assert [method for method, _ in cluster.calls] == ["GET", "PUT"] * 3


async def test_who_changes_it_without_end_wins_this_time(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    def interfere() -> None:
        cluster.version += 1

    cluster.on_update = interfere
    error = await refusal(workload)
    assert "was changed by somebody else meanwhile" in str(error)
    assert len(cluster.calls) == 2 * ATTEMPTS


async def test_who_leads_no_more_writes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    def lapsed() -> int:
        raise NotLeadingError("the claim has lapsed")

    cluster.replicas = 2
    await cluster.settle()
    workload = KubernetesWorkload(settings_for(cluster, tmp_path), lapsed)
    for number in (1, 3):
        with pytest.raises(NotLeadingError):
            await workload.scale(CHAT, number, [next(iter(cluster.pods))])
    await workload.close()
    assert {method for method, _ in cluster.calls} == {"GET"}


async def test_what_rbac_lacks_is_named(cluster: Cluster, workload: KubernetesWorkload) -> None:
    told = (
        'deployments.apps "chat" is forbidden: User "system:serviceaccount:llm:enginehouse" cannot update '
        'resource "deployments/scale" in API group "apps" in the namespace "llm"'
    )
    cluster.refuse("PUT", 403, told)
    error = str(await refusal(workload))
    assert told in error
    assert 'apiGroups: ["apps"], resources: ["deployments/scale"], verbs: ["update"]' in error


async def test_a_workload_that_is_not_there_is_named(cluster: Cluster, workload: KubernetesWorkload) -> None:
    cluster.refuse("GET", 404, 'deployments.apps "chat" not found')
    assert str(await refusal(workload)).startswith("there is no deployments/scale 'chat' in namespace 'llm'")


async def test_a_short_wait_that_is_asked_for_is_waited(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    cluster.refuse("GET", 429, "too many requests, please try again later", Retry_After="0")
    await workload.scale(CHAT, 2, ())
    assert cluster.replicas == 2


async def test_a_long_wait_is_kept_without_asking(cluster: Cluster, workload: KubernetesWorkload) -> None:
    cluster.refuse("GET", 429, "too many requests, please try again later", Retry_After="60")
    assert "not to be called for another 60 s" in str(await refusal(workload))
    asked = len(cluster.calls)
    await refusal(workload)
    assert len(cluster.calls) == asked, "not before the time that was told"


async def test_a_server_that_does_not_answer_holds_nobody(cluster: Cluster, tmp_path: Path) -> None:
    settings = settings_for(cluster, tmp_path)
    workload = KubernetesWorkload(settings, leads, Api(settings.kubeconfig, timeout_s=0.3))
    await workload.scale(CHAT, 1, ())
    cluster.held.clear()
    assert "did not answer get deployments/scale 'chat'" in str(await refusal(workload))
    cluster.held.set()
    await workload.scale(CHAT, 2, ())
    assert cluster.replicas == 2
    await workload.close()


async def test_a_server_that_is_not_there_is_told(cluster: Cluster, tmp_path: Path) -> None:
    cluster.url = "http://127.0.0.1:1"
    workload = KubernetesWorkload(settings_for(cluster, tmp_path), leads)
    assert "Kubernetes cannot be reached" in str(await refusal(workload))
    await workload.close()


async def test_credentials_that_expired_are_read_anew(
    cluster: Cluster, workload: KubernetesWorkload, tmp_path: Path
) -> None:
    config = Path(cluster.kubeconfig(tmp_path))
    right = config.read_text()
    config.write_text(right.replace(TOKEN, "expired"))
    assert "does not know who we are" in str(await refusal(workload))
    config.write_text(right)
    await workload.scale(CHAT, 2, ())
    assert cluster.replicas == 2


async def test_who_should_go_first_does(cluster: Cluster, workload: KubernetesWorkload) -> None:
    await workload.scale(CHAT, 3, ())
    await cluster.settle()
    await cluster.ready()
    first, second, third = (f"{pod.name}/{pod.uid}" for pod in cluster.pods.values())
    await workload.scale(CHAT, 2, [second])
    await cluster.settle()
    assert [pod.terminating for pod in cluster.pods.values()] == [False, True, False]
    await cluster.gone()
    await workload.scale(CHAT, 1, [third])
    await cluster.settle()
    assert [pod.terminating for pod in cluster.pods.values()] == [False, True]
    assert first.startswith(next(iter(cluster.pods)))


async def test_what_an_earlier_leader_marked_does_not_go_before_who_should_go_now(
    cluster: Cluster, workload: KubernetesWorkload
) -> None:
    cluster.replicas = 3
    await cluster.settle()
    await cluster.ready()
    left, meant, _ = cluster.pods.values()
    left.annotations[DELETION_COST] = goes_first(time.time() - 5)
    await workload.scale(CHAT, 2, [f"{meant.name}/{meant.uid}"])
    await cluster.settle()
    assert [pod.name for pod in cluster.pods.values() if pod.terminating] == [meant.name]


def test_costs_are_numbers_of_32_bits() -> None:
    """Until 2088, that is."""
    assert -(2**31) < int(goes_first(time.time() + 60 * 365 * 86400)) < int(goes_first(time.time())) < 0


async def test_where_an_autoscaler_sets_the_number_pods_are_only_marked(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.replicas = 2
    await cluster.settle()
    workload = KubernetesWorkload(settings_for(cluster, tmp_path, scaled_by="autoscaler"), leads)
    one, other = cluster.pods.values()
    await workload.scale(CHAT, 1, [f"{one.name}/{one.uid}"])
    assert int(one.annotations[DELETION_COST]) < 0
    await workload.scale(CHAT, 1, [f"{other.name}/{other.uid}"])
    assert (one.annotations.keys(), other.annotations.keys()) == (set(), {DELETION_COST})
    assert not any("/scale" in path for _, path in cluster.calls)
    await workload.close()


async def test_names_that_kubernetes_does_not_have_are_refused(workload: KubernetesWorkload) -> None:
    with pytest.raises(ActuatorError, match=r"'org/Chat'.*no Kubernetes name.*write actuator\.workload out"):
        await workload.scale(CHAT.model_copy(update={"name": "org/Chat"}), 1, ())


async def test_outside_of_a_cluster_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    workload = KubernetesWorkload(KubernetesActuator(type="kubernetes"), leads)
    assert "not in a pod of Kubernetes" in str(error := await refusal(workload))
    assert "check actuator.kubeconfig" in str(error)


async def test_without_the_extra_it_is_named(
    cluster: Cluster, workload: KubernetesWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio.client", None)
    error = await refusal(workload)
    assert "pip install 'enginehouse[k8s]'" in str(error)
