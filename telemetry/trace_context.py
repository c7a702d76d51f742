"""W3C trace context: what a caller sent, and what is sent on.

Source: https://www.w3.org/TR/trace-context/ (level 1).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE_MAX_CHARS = 512
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class TraceParent(NamedTuple):
    """A caller's span."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(header: str | None) -> TraceParent | None:
    """Read a `traceparent` header; one that is malformed counts as absent, as the standard asks."""
    if header is None or (found := _TRACEPARENT.fullmatch(header.strip())) is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & 1))


def usable_tracestate(header: str | None) -> str | None:
    """The `tracestate` to send on, or None where there is none or it is longer than 512 characters."""
    if header is None or not header.strip() or len(header) > _TRACESTATE_MAX_CHARS:
        return None
    return header.strip()
