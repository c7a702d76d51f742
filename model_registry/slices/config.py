"""Settings of slices."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SlicesConfig(BaseModel):
    """How gateway workers share slots of endpoints and limits of tenants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    """How long a slice outlives its worker's last report: so much later the others may have it."""
    report_s: Annotated[float, Field(gt=0)] = 0.25
    """How often a worker reports; it does so at once when it is short."""
    expected_workers: Annotated[int, Field(ge=1)] | None = None
    """Workers on all hosts, for a start without Redis, when none can be counted; None: `gateway.workers`."""
    top_up_wait_s: Annotated[float, Field(ge=0, le=1)] = 0.05
    """How long a request waits for more of its tenant's limit before it is refused."""

    @model_validator(mode="after")
    def _leases_outlive_the_reports(self) -> Self:
        """Slices that lapse between two reports would come and go."""
        if self.lease_s < 4 * self.report_s:
            raise ValueError(f"lease_s ({self.lease_s:g}) must be at least 4 x report_s ({self.report_s:g})")
        return self
