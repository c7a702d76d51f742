"""Settings of batch jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1024**2
DAY_S = 86_400.0
Seconds = Annotated[float, Field(gt=0)]


class BatchJobsConfig(BaseModel):
    """Where files are kept, how much of them, and how much room rows may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_path: Path | None = None
    """Folder of files and results, shared by all gateways (several hosts: a network mount); None: off."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 1024 * MIB
    """Free space of `store_path` below which uploads are refused and jobs pause."""
    max_file_bytes: Annotated[int, Field(ge=1024)] = 200 * MIB
    max_files_per_tenant: Annotated[int, Field(ge=1)] = 10_000
    max_rows: Annotated[int, Field(ge=1)] = 50_000
    """Rows of one job."""
    max_jobs_per_tenant: Annotated[int, Field(ge=1)] = 100
    """Jobs of a tenant that have not ended."""
    retention_s: Annotated[float, Field(ge=3600)] = 30 * DAY_S
    """How long files are kept whose owner does not say, and jobs after their end."""
    sweep_s: Seconds = 60.0
    """How often what is past its time is deleted."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the slots that no interactive request holds which rows may take, over all gateways."""
    rows_per_worker: Annotated[int, Field(ge=1)] = 64
    """Rows that one gateway worker has in flight at most."""
    rows_per_job: Annotated[int, Field(ge=1)] = 256
    """Rows of one job in flight at most, over all gateways; in whole slices."""
    slice_rows: Annotated[int, Field(ge=1, le=1024)] = 32
    """Rows that a worker claims at once."""
    lease_s: Seconds = 15.0
    """How long a claim outlives its worker: so much later others take over its rows."""
    poll_s: Seconds = 0.5
    """How often a worker reports its load and looks for work."""
    record_s: Seconds = 0.25
    """How long a result may wait to be recorded together with others."""
    row_attempts: Annotated[int, Field(ge=1)] = 3
    """Runs of a row that failed by no fault of its own before the failure is its result."""

    @model_validator(mode="after")
    def _claims_outlive_the_renewals(self) -> Self:
        """A claim that lapses between two looks would be run by two workers."""
        if self.lease_s < 4 * self.poll_s:
            raise ValueError(f"lease_s ({self.lease_s:g}) must be at least 4 x poll_s ({self.poll_s:g})")
        return self
