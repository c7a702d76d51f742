"""Settings of the controller."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ControllerConfig(BaseModel):
    """How often model servers are looked at, and how long one of several controllers leads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    health_period_s: Annotated[float, Field(gt=0)] = 1.0
    """Time between two looks at every model server."""
    health_timeout_s: Annotated[float, Field(gt=0)] = 2.0
    """How long one look may take before the server counts as not answering."""
    unhealthy_after: Annotated[int, Field(ge=1)] = 2
    """Looks in a row that must fail before an endpoint is unhealthy."""
    leadership_s: Annotated[float, Field(gt=0)] = 5.0
    """How long a controller leads without renewing its claim."""
