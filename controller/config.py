"""Settings of the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controller.replicas.config import ReplicasConfig

Seconds = Annotated[float, Field(gt=0, le=3600)]


class ControllerConfig(BaseModel):
    """How often model servers are looked at, and what follows from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_s: Seconds = 1.0
    """Between two looks at every model server; a change of the registry starts one at once."""
    probe_timeout_s: Seconds = 2.0
    """How long a model server may take to say that it is ready."""
    introspection_timeout_s: Seconds = 10.0
    """How long a model server may take to describe its models."""
    infer_probe_s: Seconds | None = 30.0
    """A server that says it is ready is asked for one token when nobody has seen an answer of it for so long,
    and before it takes requests at all; sooner where gateways see its requests fail or wait. None: never."""
    infer_probe_timeout_s: Seconds = 5.0
    """How long that may take, beside the prompts that wait there; and so long after a failure it is asked
    again, once it is out of service for that."""
    unhealthy_after: Annotated[int, Field(gt=0)] = 2
    """Failed probes in a row that take a ready endpoint out of service."""
    drain_s: Seconds = 30.0
    """How long an endpoint stays registered as draining after its deployment no longer wants it."""
    leadership_ttl_s: Seconds = 4.0
    """How long a dead leader is waited for."""
    replicas: ReplicasConfig = Field(default_factory=ReplicasConfig)
    """How patient it is with replicas of scaled deployments."""
    state_path: Path | None = None
    """Folder in which pools of processes keep what runs; every controller of the machine uses the same.
    Default: `replicas` in the state directory."""
    host: str = "127.0.0.1"
    """Address of the two ports below; `0.0.0.0` or `::` for others than this machine."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """`GET /metrics` for Prometheus: replicas wanted and there. 0: any free port. None: off."""
    keda_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """gRPC service for KEDA's `external` and `external-push` triggers. 0: any free port. None: off."""
    alive_file: Path | None = None
    """Rewritten every 2 s while the controller is well, for whoever watches over it; None: no such file."""

    @model_validator(mode="after")
    def _leadership_outlives_the_looks(self) -> Self:
        """A leader that looks for longer than its claim lasts would lose it in every round."""
        period_s, ttl_s = self.interval_s, self.leadership_ttl_s
        if 2 * period_s >= ttl_s:
            raise ValueError(f"leadership_ttl_s ({ttl_s:g}) must be above 2 x interval_s ({period_s:g})")
        return self
