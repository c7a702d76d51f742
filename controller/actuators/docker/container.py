"""Containers in the words of the Engine API: what to create for a replica, what an answer says. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from controller.actuators.words import PORTS, filled, words_of
from model_registry.entities import Deployment, ServerRef
from model_registry.pools import DockerActuator
from model_registry.replicas import Replica

REGISTRY_LABEL = "enginehouse.registry"
POOL_LABEL = "enginehouse.pool"
REPLICA_LABEL = "enginehouse.replica"
DEPLOYMENT_LABEL = "enginehouse.deployment"
GPUS_LABEL = "enginehouse.gpus"
HANDLE_LENGTH = 12
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_.-]+")


class Owner(NamedTuple):
    """Whose containers they are; a daemon may run those of several registries."""

    registry: str
    pool: str

    @property
    def labels(self) -> dict[str, str]:
        return {REGISTRY_LABEL: self.registry, POOL_LABEL: self.pool}


class Present(NamedTuple):
    """A container that is there."""

    id: str
    replica: str
    state: str
    """The daemon's word: `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    gpus: tuple[int, ...]

    @property
    def handle(self) -> str:
        return self.id[:HANDLE_LENGTH]

    @property
    def ended(self) -> bool:
        """It ran, and does not any more."""
        return self.state in ("exited", "dead")

    @classmethod
    def of(cls, listed: Mapping[str, Any]) -> Present:
        """One of the daemon's list."""
        labels = listed.get("Labels") or {}
        gpus = tuple(int(number) for number in str(labels.get(GPUS_LABEL, "")).split(",") if number)
        return cls(str(listed["Id"]), str(labels.get(REPLICA_LABEL, "")), str(listed["State"]), gpus)


def container_name(registry: str, replica: str) -> str:
    """Also its host name for those in the same network."""
    return _NOT_IN_NAMES.sub("-", f"enginehouse-{registry}-{replica}".lower())


def free_gpus(taken: Iterable[int], count: int) -> tuple[int, ...]:
    """The lowest `count` numbers that nobody has."""
    used, found, number = set(taken), list[int](), 0
    while len(found) < count:
        if number not in used:
            found.append(number)
        number += 1
    return tuple(found)


def description(
    spec: DockerActuator, owner: Owner, replica: Replica, deployment: Deployment, gpus: Sequence[int]
) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    Docker does not start it again when it ends: whether there should be another one, and where, is for the
    controller to say.
    """
    ports = {name: port for name in PORTS if (port := getattr(spec, name)) is not None}
    words = words_of(replica, deployment, ports)
    exposed = [f"{port}/tcp" for port in ports.values()]
    host: dict[str, Any] = {
        "Binds": list(spec.volumes),
        "Init": True,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
    if spec.network is None:
        host["PortBindings"] = {port: [{"HostIp": _bound(spec.host), "HostPort": ""}] for port in exposed}
    else:
        host["NetworkMode"] = spec.network
    if gpus:
        device = {"Driver": "nvidia", "DeviceIDs": [str(gpu) for gpu in gpus], "Capabilities": [["gpu"]]}
        host |= {"DeviceRequests": [device], "ShmSize": 2 << 30}
    labels = {**owner.labels, REPLICA_LABEL: replica.name, DEPLOYMENT_LABEL: deployment.name}
    if gpus:
        labels[GPUS_LABEL] = ",".join(str(gpu) for gpu in gpus)
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={filled(value, words)}" for name, value in spec.environment.items()],
        "Labels": labels,
        "ExposedPorts": {port: {} for port in exposed},
        "HostConfig": host,
    }
    if spec.command:
        body["Cmd"] = [filled(argument, words) for argument in spec.command]
    return body


def server_of(spec: DockerActuator, inspected: Mapping[str, Any]) -> ServerRef | None:
    """Where gateways reach it; None while the daemon has not bound its ports yet."""
    addresses = {name: _address(spec, name, inspected) for name in PORTS if getattr(spec, name) is not None}
    if any(address is None for address in addresses.values()):
        return None
    metrics = addresses.get("metrics_port")
    return ServerRef(
        http=f"http://{addresses['http_port']}",
        grpc=addresses.get("grpc_port"),
        metrics=f"http://{metrics}/metrics" if metrics else None,
    )


def _address(spec: DockerActuator, name: str, inspected: Mapping[str, Any]) -> str | None:
    port = int(getattr(spec, name))
    if spec.network is not None:
        return f"{str(inspected['Name']).lstrip('/')}:{port}"
    bound = ((inspected.get("NetworkSettings") or {}).get("Ports") or {}).get(f"{port}/tcp") or []
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{host}:{bound[0]['HostPort']}" if bound else None


def _bound(host: str) -> str:
    """Loopback stays loopback; any other host is one that gateways reach it by from elsewhere."""
    try:
        return host if ipaddress.ip_address(host).is_loopback else ""
    except ValueError:
        return "127.0.0.1" if host == "localhost" else ""
