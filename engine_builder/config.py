"""Settings of builds: where things lie, what must stay free, and how builders share the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_registry.engine_specs import Runtime

_GIB = 1 << 30
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class BuilderConfig(BaseModel):
    """Builds on this machine, and the builder process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache_path: Path | None = None
    """What steps have left, by what went in; None: `builds` in the state folder."""
    cache_max_gib: Annotated[float, Field(ge=0)] | None = None
    """Above it a builder removes what was not used lately, after each build; None: it removes nothing."""
    runtime: Runtime | None = None
    """Builds that this builder takes; None: `tensorrt-llm` where its tools are found, else `emulated`."""
    gpu_class: str | None = None
    """Of this machine's GPUs, as specs spell it; None: builds for any class are taken."""
    min_free_disk_gib: Annotated[float, Field(ge=0)] = 1.0
    """A step is ended, and the build fails or goes elsewhere, when less is free beside the cache."""
    min_free_memory_gib: Annotated[float, Field(ge=0)] = 0.25
    """As `min_free_disk_gib`, of the machine's or container's memory."""
    grace_s: Seconds = 10.0
    """From SIGTERM to SIGKILL for a program that is ended."""
    drain_s: Annotated[float, Field(ge=0)] = 60.0
    """How long a builder that was told to end lets a step go on, before it gives the build back."""
    lease_s: Seconds = 20.0
    """How long a claim outlives its builder's last sign of life; so much later another one goes on."""
    heartbeat_s: Seconds = 1.0
    """How often a builder says that it lives, and how far it is."""
    poll_s: Seconds = 1.0
    """How often an idle builder looks for work."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """Builders that may die over one build, or lack room for it, before it has failed."""
    retry_s: Seconds = 30.0
    """How long a build that lacked room waits for another attempt."""
    retention_s: Seconds = 7 * 86_400.0
    """How long ended builds are remembered."""

    @model_validator(mode="after")
    def _claims_outlive_the_beats(self) -> Self:
        """Claims that lapse between two signs of life would come and go."""
        if self.lease_s < 4 * self.heartbeat_s:
            raise ValueError(
                f"lease_s ({self.lease_s:g}) must be at least 4 x heartbeat_s ({self.heartbeat_s:g})"
            )
        return self

    @property
    def min_free_disk_bytes(self) -> int:
        return int(self.min_free_disk_gib * _GIB)

    @property
    def min_free_memory_bytes(self) -> int:
        return int(self.min_free_memory_gib * _GIB)

    @property
    def cache_max_bytes(self) -> int | None:
        return None if self.cache_max_gib is None else int(self.cache_max_gib * _GIB)
