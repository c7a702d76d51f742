"""Pool: where replicas may run, and how they are brought up and taken down.

A deployment with `scaling` names one; the controller then places its replicas there. What an actuator of
each type does with these fields is in `controller/actuators/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_registry.entities import Entity, LabelName, Name, ServerRef

Mebibytes = Annotated[int, Field(gt=0, le=1 << 24)]
_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Argument = Annotated[str, Field(min_length=1, max_length=4096)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolServer(ServerRef):
    """A Triton in explicit model-control mode, which holds as many replicas as fit."""

    memory_mib: Mebibytes | None = None
    """For all replicas on it together; None: no bound, or none that matters."""
    gpu: str | None = None
    """What servers of the pool share: replicas are loaded one at a time on each. None: a GPU of its own."""


class TritonActuator(_Part):
    """Loads and unloads models of running servers by their repository API."""

    type: Literal["triton"]
    servers: Annotated[tuple[PoolServer, ...], Field(min_length=1)]
    leak_mib: Mebibytes = 512
    """A server that keeps so much more than its replicas need is recycled, if `recycle` says how."""
    recycle: tuple[_Argument, ...] = ()
    """Command that restarts a drained server, and ends once the old process is gone. `{http}`, `{host}` and
    `{port}` stand for what they say. Empty: it is only reported. The server has to load by itself what
    deployments with `servers` use of it."""

    @property
    def has_budgets(self) -> bool:
        """Memory decides what its servers hold, whatever the numbers."""
        return all(one.memory_mib is not None for one in self.servers)


class ProcessActuator(_Part):
    """Runs a server of its own for each replica, on the controller's machine."""

    type: Literal["process"]
    command: Annotated[tuple[_Argument, ...], Field(min_length=1)]
    """Program and arguments. `{http_port}`, `{grpc_port}`, `{metrics_port}`, `{replica}`, `{deployment}`,
    `{model}` and `{target}` stand for what they say."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    start_timeout_s: _Seconds = 600.0
    stop_timeout_s: _Seconds = 30.0


class DockerActuator(_Part):
    """Runs a container of its own for each replica."""

    type: Literal["docker"]
    image: _Argument
    command: tuple[_Argument, ...] = ()
    """As a process's; ports are those inside the container."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    http_port: Annotated[int, Field(gt=0, lt=65536)] = 8000
    grpc_port: Annotated[int, Field(gt=0, lt=65536)] | None = None
    metrics_port: Annotated[int, Field(gt=0, lt=65536)] | None = None
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    """NVIDIA devices of each container."""
    network: str | None = None
    """Docker network by whose names gateways reach the containers; None: ports of `host`."""
    volumes: tuple[_Argument, ...] = ()
    """`source:target[:ro]`."""
    host: str = "127.0.0.1"
    url: str | None = None
    """Of the Engine API; None: `DOCKER_HOST`, else the local socket."""
    start_timeout_s: _Seconds = 600.0
    stop_timeout_s: _Seconds = 30.0


class KubernetesActuator(_Part):
    """Sets the replicas of a workload and follows its Service's EndpointSlices."""

    type: Literal["kubernetes"]
    namespace: _Argument = "default"
    kind: Literal["Deployment", "StatefulSet", "LeaderWorkerSet"] = "Deployment"
    workload: _Argument = "{deployment}"
    """Its name; `{deployment}` stands for the deployment's, in `service` as well."""
    service: _Argument = "{deployment}"
    """By whose EndpointSlices its pods are found. Of a LeaderWorkerSet it must select the leaders alone."""
    port: _Argument = "http"
    """Name that the Service gives the port, or number of the pods' port; so the other two."""
    grpc_port: _Argument | None = None
    metrics_port: _Argument | None = None
    scaled_by: Literal["enginehouse", "autoscaler"] = "enginehouse"
    """`autoscaler`: KEDA or an HPA sets the number, from what the controller tells them."""
    kubeconfig: str | None = None
    """None: in the cluster, by the pod's service account."""


class DryRunActuator(_Part):
    """Says what it would do, and does nothing."""

    type: Literal["dry-run"]


Actuator = TritonActuator | ProcessActuator | DockerActuator | KubernetesActuator | DryRunActuator


class Pool(Entity):
    """GPUs of one class that deployments share."""

    name: Name
    description: str | None = None
    actuator: Annotated[Actuator, Field(discriminator="type")]
    gpu_class: str | None = None
    """As in goodput cards."""
    cost_per_hour: Annotated[float, Field(ge=0)] = 1.0
    """Of one replica, in any unit that is the same for all pools."""
    max_replicas: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of all deployments; None: what fits. Not for Tritons all of which have `memory_mib`: that says it."""
    labels: Mapping[LabelName, str] = Field(default_factory=dict)
    """Added to those of its deployments."""

    def labels_with(self, own: Mapping[str, str]) -> dict[str, str]:
        """Those of a deployment whose own are these, which win."""
        return {**self.labels, **own}
