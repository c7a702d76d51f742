"""The manifests of deploy/kubernetes agree with each other, and with our code."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import typer

from controller.actuators.kubernetes.workload import KubernetesWorkload
from engine_builder.contract.images import IMAGES
from enginehouse.cli import app
from enginehouse.settings import Settings, load
from gateway.app import make_app
from model_registry.entities import Deployment
from model_registry.manifests import parse_manifests
from model_registry.pools import KubernetesActuator, Pool
from tests.controller.actuators.kubernetes.cluster import NAMESPACE, Cluster
from tests.controller.actuators.kubernetes.conftest import CHAT, leads, settings_for
from tests.deploy.manifests import (
    FOLDER,
    PodTemplate,
    containers,
    documents,
    named,
    of_kind,
    ports_of,
    selected,
)

OURS = {"enginehouse", "enginehouse-triton"}
MANIFESTS = sorted((FOLDER / "enginehouse").glob("*.yaml"))


def test_containers_may_do_no_more_than_they_need() -> None:
    for template, container in containers():
        pod, own = template.spec["securityContext"], container["securityContext"]
        assert pod["runAsNonRoot"] is True, template.workload
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["readOnlyRootFilesystem"] is True, template.workload
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        has_rights = template.workload == "controller"
        assert ("serviceAccountName" in template.spec) == has_rights
        assert template.spec.get("automountServiceAccountToken", True) == has_rights, template.workload


def test_containers_have_bounds_probes_and_a_version() -> None:
    for template, container in containers():
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), template.workload
        assert "memory" in container["resources"]["limits"]
        image = container["image"]
        assert image.startswith("enginehouse") or image.partition(":")[2] not in {"", "latest"}
        if not template.answers:
            continue
        assert "startupProbe" in container
        assert {"livenessProbe", "readinessProbe"} & container.keys(), template.workload
        known = ports_of(template)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            way = container.get(probe, {})
            for target in (way.get("httpGet"), way.get("tcpSocket")):
                assert target is None or target["port"] in known


def test_nothing_that_is_mounted_is_missing() -> None:
    for template, container in containers():
        volumes = {volume["name"] for volume in template.spec.get("volumes", ())}
        for document in of_kind("StatefulSet"):
            if document["metadata"]["name"] == template.workload:
                volumes |= {claim["metadata"]["name"] for claim in document["spec"]["volumeClaimTemplates"]}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes, template.workload


def test_selectors_find_pods_and_their_ports() -> None:
    for document in of_kind("Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"):
        spec, namespace = document["spec"], document["metadata"]["namespace"]
        labels = (spec.get("selector") or spec.get("podSelector") or {}).get("matchLabels", {})
        assert selected(labels, namespace), document["metadata"]["name"]
        for rule in spec.get("ingress", ()):
            known = {name for one in selected(labels, namespace) for name in ports_of(one)}
            assert {port["port"] for port in rule.get("ports", ())} <= known
    for document in of_kind("Service"):
        pods = selected(document["spec"]["selector"], document["metadata"]["namespace"])
        assert len(pods) == 1, document["metadata"]["name"]
        assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports_of(pods[0]).keys()


def environment(container: Any) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container.get("env", ())}


def house(workload: str, folder: Path) -> tuple[PodTemplate, Any, Settings]:
    """Its settings, read as in the pod; the Secret's files are in `folder`."""
    (found,) = [(t, c) for t, c in containers() if t.workload == workload]
    (mount,) = [m["mountPath"] for m in found[1]["volumeMounts"] if m["name"] == "redis"]
    (volume,) = [v for v in found[0].spec["volumes"] if v["name"] == "redis"]
    for item in volume["secret"]["items"]:
        (folder / item["path"]).write_text("redis://:secret@redis:6379/0\n")
    variables = {name: value.replace(mount, str(folder)) for name, value in environment(found[1]).items()}
    settings = load(environment=variables).settings
    assert settings.registry.redis_url == "redis://:secret@redis:6379/0"
    return *found, settings


def test_commands_of_our_images_exist_with_their_options() -> None:
    commands = typer.main.get_command(app)
    used = [container for _, container in containers() if container["image"] in OURS]
    assert used
    for container in used:
        assert "command" not in container, "the image's entry point is the command line"
        name, *arguments = container["args"]
        commands.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_the_gateway_listens_where_its_service_and_probes_look(tmp_path: Path) -> None:
    template, container, settings = house("gateway", tmp_path)
    arguments = dict(zip(container["args"][1::2], container["args"][2::2], strict=True))
    assert int(arguments["--port"]) == ports_of(template)["http"]
    assert arguments["--host"] == "0.0.0.0"
    routes = make_app(SimpleNamespace(handlers={}), AsyncMock(), (), 1).router.routes()  # type: ignore[arg-type]
    paths = {route.resource.canonical for route in routes if route.resource is not None}
    annotations = named("Deployment", "enginehouse", "gateway")["spec"]["template"]["metadata"]["annotations"]
    probed = {
        container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert {*probed, annotations["prometheus.io/path"]} <= paths
    assert int(annotations["prometheus.io/port"]) == int(arguments["--port"])
    gateway = settings.gateway
    assert gateway.drain_notice_s
    assert gateway.drain_notice_s + gateway.drain_timeout_s < template.spec["terminationGracePeriodSeconds"]
    assert gateway.drain_notice_s > 2 * container["readinessProbe"]["periodSeconds"]


def test_the_controller_listens_where_keda_and_prometheus_ask(tmp_path: Path) -> None:
    template, container, settings = house("controller", tmp_path)
    controller, ports = settings.controller, ports_of(template)
    assert controller.host == "0.0.0.0"
    assert (controller.keda_port, controller.metrics_port) == (ports["keda"], ports["metrics"])
    service = named("Service", "enginehouse", "controller")["spec"]["ports"]
    assert {port["targetPort"] for port in service} == set(ports)
    *program, module, alive = container["livenessProbe"]["exec"]["command"]
    assert program == ["python", "-m"]
    assert find_spec(module) is not None
    assert controller.alive_file == Path(alive)


def test_images_of_engines_are_in_the_version_table() -> None:
    used = {container["image"] for _, container in containers() if "tritonserver" in container["image"]}
    assert used
    assert used <= {image.reference for image in IMAGES}


async def _rights_used(cluster: Cluster, folder: Path) -> set[tuple[str, str, str]]:
    """By what the actuator really asks: API group, resource, verb."""
    cluster.replicas = 2
    await cluster.settle()
    workload = KubernetesWorkload(settings_for(cluster, folder), leads)
    for member in await workload.members(CHAT):
        await workload.scale(CHAT, 1, [member.handle])
    await cluster.watched()
    await workload.close()
    used = set()
    for method, path in cluster.calls:
        place, _, query = path.partition("?")
        root, _, rest = place.strip("/").partition(f"/namespaces/{NAMESPACE}/")
        group = root.split("/")[1] if root.startswith("apis/") else ""
        plural, *more = rest.split("/")
        verb = {"PUT": "update", "PATCH": "patch"}.get(method, "get" if more else "list")
        used.add((group, "/".join([plural, *more[1:]]), "watch" if "watch=1" in query else verb))
    return used


async def test_the_role_gives_what_is_used_and_nothing_else(tmp_path: Path) -> None:
    used = set()
    for plural, group in (
        ("deployments", "apps/v1"),
        ("statefulsets", "apps/v1"),
        ("leaderworkersets", "leaderworkerset.x-k8s.io/v1"),
    ):
        async with Cluster(plural, group).running() as cluster:
            used |= await _rights_used(cluster, tmp_path)
    (role,) = of_kind("Role")
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert given == used
    (binding,) = of_kind("RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = binding["subjects"][0]
    assert named("ServiceAccount", account["namespace"], account["name"])
    assert (
        named("Deployment", "enginehouse", "controller")["spec"]["template"]["spec"]["serviceAccountName"]
        == account["name"]
    )
    assert not of_kind("ClusterRole", "ClusterRoleBinding")


@cache
def registry() -> tuple[dict[str, Pool], dict[str, Deployment]]:
    objects = [item for path in MANIFESTS for item in parse_manifests([(path.name, path.read_text())])]
    pools = {item.name: item for item in objects if isinstance(item, Pool)}
    return pools, {item.name: item for item in objects if isinstance(item, Deployment)}


def test_pools_point_to_workloads_and_services_that_there_are() -> None:
    pools, deployments = registry()
    assert deployments
    for deployment in deployments.values():
        assert deployment.scaling is not None
        actuator = pools[deployment.scaling.pool].actuator
        assert isinstance(actuator, KubernetesActuator)
        (role,) = of_kind("Role")
        assert actuator.namespace == role["metadata"]["namespace"]
        workload = named(actuator.kind, actuator.namespace, deployment.name)
        assert "replicas" not in workload["spec"], "the controller sets them"
        service = named("Service", actuator.namespace, deployment.name)
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {actuator.port, actuator.grpc_port, actuator.metrics_port} - {None} <= ports
        (pods,) = selected(service["spec"]["selector"], actuator.namespace)
        assert pods.workload == deployment.name


def test_autoscalers_ask_the_controller_for_deployments_that_there_are() -> None:
    _, deployments = registry()
    (scaled,) = of_kind("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] in {"external", "external-push"}
    scaling = deployments[trigger["metadata"]["deployment"]].scaling
    assert scaling is not None
    bounds = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    assert bounds == (scaling.min_replicas, scaling.max_replicas)
    host, _, port = trigger["metadata"]["scalerAddress"].partition(":")
    name, namespace, *_ = host.split(".")
    ports = named("Service", namespace, name)["spec"]["ports"]
    assert int(port) in {entry["port"] for entry in ports if entry["name"] == "keda"}
    (hpa,) = of_kind("HorizontalPodAutoscaler")
    metric = hpa["spec"]["metrics"][0]["external"]["metric"]
    assert metric["selector"]["matchLabels"]["deployment"] in deployments
    (adapter,) = documents(FOLDER / "hpa/prometheus-adapter.yaml")
    assert metric["name"] == adapter["externalRules"][0]["name"]["as"] == "enginehouse_wanted_replicas"
    for target in (scaled["spec"]["scaleTargetRef"], hpa["spec"]["scaleTargetRef"]):
        assert named(target["kind"], "enginehouse-engines", target["name"])
