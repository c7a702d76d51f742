"""Settings of the controller."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    leadership_ttl_s: Seconds = 5.0
    """How long a dead leader is waited for."""

    @model_validator(mode="after")
    def _leadership_outlives_the_looks(self) -> Self:
        """A leader that looks for longer than its claim lasts would lose it in every round."""
        period_s, ttl_s = self.interval_s, self.leadership_ttl_s
        if 2 * period_s >= ttl_s:
            raise ValueError(f"leadership_ttl_s ({ttl_s:g}) must be above 2 x interval_s ({period_s:g})")
        return self
