"""Resources: what of the Kubernetes API is asked, by path, and how it is named to operators. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controller.actuators.port import ActuatorError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A DNS subdomain (RFC 1123), as Kubernetes wants names of objects."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One object, a part of it, or with neither all of its kind in a namespace."""

    group: str
    """API group; empty: the core one."""
    version: str
    plural: str
    namespace: str
    name: str = ""
    part: str = ""
    """Subresource."""

    @property
    def path(self) -> str:
        """Where the API server has it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = (root, "namespaces", self.namespace, self.plural, self.name, self.part)
        return "/".join(part for part in parts if part)

    @property
    def kind(self) -> str:
        """As RBAC rules name it."""
        return f"{self.plural}/{self.part}" if self.part else self.plural

    def __str__(self) -> str:
        named = f" {self.name!r}" if self.name else ""
        return f"{self.kind}{named} in namespace {self.namespace!r}"

    def rule(self, verb: str) -> str:
        """The RBAC rule that allows `verb`."""
        return f'apiGroups: ["{self.group}"], resources: ["{self.kind}"], verbs: ["{verb}"]'


_KINDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "Deployment": ("apps", "v1", "deployments"),
        "StatefulSet": ("apps", "v1", "statefulsets"),
        "LeaderWorkerSet": ("leaderworkerset.x-k8s.io", "v1", "leaderworkersets"),
    }
)


def scale_of(kind: str, namespace: str, name: str) -> Resource:
    """The scale subresource of a workload."""
    return Resource(*_KINDS[kind], namespace, name, "scale")


def pod(namespace: str, name: str) -> Resource:
    """One pod, whatever made it."""
    return Resource("", "v1", "pods", namespace, name)


def slices(namespace: str) -> Resource:
    """All EndpointSlices of a namespace."""
    return Resource("discovery.k8s.io", "v1", "endpointslices", namespace)


def named(field: str, template: str, deployment: str) -> str:
    """The Kubernetes name that a pool's `field` gives for a deployment. Raises ActuatorError."""
    name = template.replace("{deployment}", deployment)
    if not _NAME.fullmatch(name):
        raise ActuatorError(
            f"actuator.{field} gives {name!r} for deployment {deployment!r}, which is no Kubernetes name "
            f"(a-z 0-9 - .); rename the deployment, or write actuator.{field} out in a pool of its own"
        )
    return name
