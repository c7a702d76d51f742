"""TelemetryConfig: what is traced, where traces go and how logs look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class TelemetryConfig(BaseModel):
    """Settings of traces and logs; metrics have none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service_name: Annotated[str, Field(min_length=1)] = "enginehouse"
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of requests without a caller's sampling decision that are traced; by trace id, so that every
    worker decides alike."""
    keep_errors: bool = True
    """Also keep the trace of a request that failed on our side, sampled or not."""
    keep_slower_than_s: Annotated[float, Field(gt=0)] | None = None
    """Also keep the trace of a request that took at least this long. None: no such rule."""
    exporter: Literal["otlp", "file"] | None = None
    """None: nothing is recorded, and the caller's trace context is sent on unchanged."""
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    """Full URL of an OTLP/HTTP trace receiver, e.g. `http://collector:4318/v1/traces`."""
    trace_file: Path | None = None
    """JSON lines, one span a line; several workers may share it."""
    trace_file_max_bytes: Annotated[int, Field(ge=64 * 1024)] = 32 * 1024 * 1024
    """At this size the file is renamed to `<name>.1`, replacing the older one."""
    log_level: LogLevel = "INFO"
    log_format: Literal["json", "text"] = "json"
    capture_content: bool = False
    """Let prompts and completions into traces and logs."""

    @model_validator(mode="after")
    def _exporter_has_its_target(self) -> Self:
        if self.exporter == "otlp" and self.otlp_endpoint is None:
            raise ValueError("telemetry.otlp_endpoint must be set when telemetry.exporter is 'otlp'")
        if self.exporter == "file" and self.trace_file is None:
            raise ValueError("telemetry.trace_file must be set when telemetry.exporter is 'file'")
        return self
