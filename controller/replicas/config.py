"""Settings of replicas."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from model_registry.demand.demand import ENDED_S, LAPSES_S

Seconds = Annotated[float, Field(gt=0, le=3600)]


class ReplicasConfig(BaseModel):
    """How patient the controller is with replicas; the settings `controller.replicas.*`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin_s: Seconds = 1.0
    """What must be left of the claim to lead before anything is started or stopped."""
    stale_after_s: Annotated[float, Field(gt=0, lt=ENDED_S)] = LAPSES_S
    """Reports of gateways that are older say nothing of now: no replica goes, the load is not known, and no
    rollout moves on. Below 60: a gateway process that is silent for so long counts as ended."""
    drain_s: Seconds = 300.0
    """The longest that a draining replica waits for its requests; it stops as soon as it has none."""
    settle_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    """How much later than the end of its traffic a report must be, to be believed that it has no request."""
    replace_after_s: Seconds = 30.0
    """How long a replica may be unhealthy before another one takes its place."""
    ready_within_s: Annotated[float, Field(gt=0, le=86_400)] = 1800.0
    """How long a start may take; then it has failed."""
    retry_s: Seconds = 5.0
    """Until the next start after one that failed; doubled with each failure in a row."""
    retry_limit_s: Seconds = 300.0
    """The longest such wait."""
    look_s: Seconds = 5.0
    """Between two looks at what there is, for replicas that have died and for what no record names."""
    orphan_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """How long something with our mark may be there without a record, and without a deployment whose replica
    it can be, before it is taken away."""
