"""Files and batch jobs as values, and what a worker is given to do of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
"""OpenAI's."""
ENDED: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})
Stop = Literal["", "cancelled", "expired"]
Purpose = Literal["batch", "batch_output"]


class StoredFile(msgspec.Struct, frozen=True):
    """What is known of a file beside its content."""

    id: str
    tenant: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    """Unix seconds of Redis."""
    expires_at: int


class RowError(msgspec.Struct, frozen=True):
    """Why a job's input was refused, or a job stopped."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None
    """Of the input file, from 1."""


class BatchJob(msgspec.Struct, frozen=True):
    """One batch job; times are Unix seconds of Redis, 0 where it has not come to that."""

    id: str
    tenant: str
    key: str
    """Name of the API key that made it; its rows run as requests of that key."""
    endpoint: str
    input_file: str
    completion_window: str
    metadata: Mapping[str, str] | None
    output_expires_s: int
    status: Status
    stop: Stop
    """Why no further row is started."""
    model: str
    """As the rows name it; empty before they were read."""
    slice_rows: int
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    output_file: str
    error_file: str
    errors: tuple[RowError, ...]
    times: Mapping[str, int]
    """`created_at`, `expires_at` and, of each status that it came to, `<status>_at`."""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> BatchJob:
        """A job as its hash in Redis holds it."""
        asked: dict[str, Any] = msgspec.json.decode(fields["asked"])
        counts = (
            "slice_rows",
            "total",
            "completed",
            "failed",
            "input_tokens",
            "output_tokens",
            "cached_tokens",
        )
        kept: dict[str, Any] = {name: fields.get(name, "") for name in ("model", "output_file", "error_file")}
        kept |= {name: int(fields.get(name, 0)) for name in counts}
        return cls(
            **asked,
            **kept,
            status=msgspec.convert(fields["status"], Status),
            stop=msgspec.convert(fields["stop"], Stop),
            errors=msgspec.json.decode(fields.get("errors", "[]"), type=tuple[RowError, ...]),
            times={
                f"{name.removesuffix('_ms')}_at": int(value) // 1000
                for name, value in fields.items()
                if name.endswith("_ms")
            },
        )

    @property
    def ended(self) -> bool:
        return self.status in ENDED


VALIDATE = "validate"
ASSEMBLE = "assemble"


class Claim(NamedTuple):
    """A worker's fenced hold of one part of a job's work."""

    job_id: str
    tenant: str
    part: str
    """`validate`, `assemble`, or `slice:<number>`."""
    holder: str
    """Worker and token; unlike every other holder that ever was."""
    rows: tuple[int, ...]
    """Rows of the slice that have no recorded result."""


class Recording(NamedTuple):
    """A segment on disk, and what recording it adds to the job."""

    segment: str
    rows: tuple[int, ...]
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class Pulse(NamedTuple):
    """What a worker learns by reporting: Redis' time, all workers' reports, and the jobs that have work."""

    now_ms: int
    reports: Mapping[str, bytes]
    active: tuple[str, ...]
