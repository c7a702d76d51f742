"""The manifests of deploy/kubernetes, read once, and what is looked up in them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
WORKLOADS = {"Deployment", "StatefulSet", "LeaderWorkerSet"}
FILES = sorted(
    path
    for path in FOLDER.glob("*/*.yaml")
    if path.name not in {"kustomization.yaml", "prometheus-adapter.yaml"}
    and path.parent.name != "enginehouse"
)


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


@cache
def everything() -> tuple[Any, ...]:
    return tuple(document for path in FILES for document in documents(path))


def of_kind(*kinds: str) -> list[Any]:
    return [document for document in everything() if document["kind"] in kinds]


def named(kind: str, namespace: str, name: str) -> Any:
    found = [
        document
        for document in of_kind(kind)
        if (document["metadata"].get("namespace"), document["metadata"]["name"]) == (namespace, name)
    ]
    assert found, f"no {kind} {namespace}/{name}"
    return found[0]


class PodTemplate(NamedTuple):
    """Of one workload."""

    workload: str
    namespace: str
    labels: dict[str, str]
    spec: Any
    answers: bool = True
    """False: a worker of a group."""


def templates() -> Iterator[PodTemplate]:
    for document in of_kind(*WORKLOADS):
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        if document["kind"] != "LeaderWorkerSet":
            template = document["spec"]["template"]
            yield PodTemplate(name, namespace, template["metadata"]["labels"], template["spec"])
            continue
        for role, index in (("leaderTemplate", "0"), ("workerTemplate", "1")):
            template = document["spec"]["leaderWorkerTemplate"][role]
            own = {
                "leaderworkerset.sigs.k8s.io/name": name,
                "leaderworkerset.sigs.k8s.io/worker-index": index,
            }
            labels = {**template["metadata"]["labels"], **own}
            yield PodTemplate(name, namespace, labels, template["spec"], answers=index == "0")


def containers() -> Iterator[tuple[PodTemplate, Any]]:
    for template in templates():
        for container in template.spec["containers"]:
            yield template, container


def selected(labels: dict[str, str], namespace: str) -> list[PodTemplate]:
    return [one for one in templates() if one.namespace == namespace and labels.items() <= one.labels.items()]


def ports_of(template: PodTemplate) -> dict[str, int]:
    listed = (port for container in template.spec["containers"] for port in container.get("ports", ()))
    return {port["name"]: port["containerPort"] for port in listed}
