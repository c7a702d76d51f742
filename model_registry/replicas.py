"""Replicas: which there are of a scaled deployment, how many there should be, and why.

Written by the leading controller alone, fenced by its leadership.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_registry.entities import Entity, Name, ServerRef

ReplicaState = Literal["starting", "ready", "draining", "stopping", "failed", "gone"]
"""`starting`: asked of the actuator, or about to be. `draining`: no new requests, those under way finish.
`stopping`: asked to go. `failed`: could not be started; what is left of it is being taken away."""


class Replica(Entity):
    """One copy of a deployment's model in a pool: a record of what was asked for, before it is asked for."""

    name: Name
    """`<deployment>.<six random digits of 0-9 a-f>`; never used twice."""
    deployment: Name
    model: Name
    pool: Name
    state: ReplicaState = "starting"
    place: str | None = None
    """Which of the pool's servers it is on (its `http`); None where each replica has a server of its own."""
    server: ServerRef | None = None
    """Where it listens; None: not known yet."""
    target: str | None = None
    """What it is called on its server: the deployment's when it was decided."""
    handle: str | None = None
    """What the actuator knows it by: pid and start time, container, pod."""
    since: float = 0.0
    """When it came to this state, Unix seconds."""
    created: float = 0.0
    """When it was decided, Unix seconds."""
    cold_start_s: Annotated[float, Field(ge=0)] | None = None
    """From the decision until it was ready."""
    memory_mib: Annotated[int, Field(ge=0)] | None = None
    """Measured when it was loaded; None: not known."""
    reason: str = ""


class Signal(BaseModel):
    """One figure that a decision went by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float
    unit: str
    source: str
    """Who told it: `gateways`, `engines` (through gateways), `servers` (by their metrics), `controller`,
    `deployment`, `card` or `profile`."""
    age_s: float | None = None
    """Since it was so; None: nobody was heard, or it does not age. What is stale is not zero."""
    server: str | None = None
    """Which server it is of, by its `http`; None: it is of all replicas together."""


class ScalingStatus(Entity):
    """Where a scaled deployment stands; its name is the deployment's."""

    name: Name
    model: Name
    pool: Name
    wanted: Annotated[int, Field(ge=0)] = 0
    ready: Annotated[int, Field(ge=0)] = 0
    starting: Annotated[int, Field(ge=0)] = 0
    draining: Annotated[int, Field(ge=0)] = 0
    reason: str = ""
    """Of the latest decision, or of what keeps it from being carried out."""
    since: float = 0.0
    """When `wanted` last changed, Unix seconds."""
    cold_start_s: float | None = None
    """Learned from the starts that were seen; None: none yet, the deployment's guess holds."""
    expected_at: float | None = None
    """When the next replica should be ready, Unix seconds; None: none is under way."""
    memory_mib: int | None = None
    """Learned: what one replica takes of its server."""
    failures: Annotated[int, Field(ge=0)] = 0
    """Starts in a row that came to nothing."""
    retry_at: float | None = None
    """When the next start is tried after one that failed, Unix seconds."""
    signals: tuple[Signal, ...] = ()
