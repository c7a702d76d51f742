"""SpanRecord: one finished span, as plain values."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SpanKindName = Literal["server", "client", "internal"]


class SpanEvent(msgspec.Struct):
    """Something that happened at one moment of a span."""

    name: str
    at_ns: int


class SpanRecord(msgspec.Struct, omit_defaults=True):
    """One span. Times are Unix nanoseconds, ids lower-case hex."""

    trace_id: str
    span_id: str
    name: str
    kind: SpanKindName
    start_ns: int
    end_ns: int
    parent_id: str | None = None
    error: bool = False
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    events: tuple[SpanEvent, ...] = ()
    service: str = ""
