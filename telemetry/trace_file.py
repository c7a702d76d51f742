"""The trace file: JSON lines, one span a line, shared by every worker.

Each batch is one write to a file opened with O_APPEND, so that lines of several processes never mix. Past
its size the file becomes `<name>.1`, replacing the older one.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

_KINDS = {kind: kind.name.lower() for kind in SpanKind}

_logger = logging.getLogger(__name__)


class SpanEvent(msgspec.Struct):
    """Something that happened at one moment of a span."""

    name: str
    at_ns: int


class SpanRecord(msgspec.Struct, omit_defaults=True):
    """One span. Times are Unix nanoseconds, ids lower-case hex."""

    trace_id: str
    span_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    parent_id: str | None = None
    error: bool = False
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    events: list[SpanEvent] = msgspec.field(default_factory=list)
    service: str = ""


class TraceFileExporter(SpanExporter):
    """Appends spans to the trace file."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write `spans` in one piece."""
        lines = self._encoder.encode_lines([_record(span) for span in spans])
        try:
            self._follow_or_rotate(len(lines))
            written = os.write(self._fd, lines)
        except OSError as error:
            _logger.warning("trace file not written", extra={"path": str(self._path), "error": str(error)})
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS if written == len(lines) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is held back between exports."""
        return True

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _follow_or_rotate(self, incoming: int) -> None:
        if self._moved():
            self._reopen()
        size = os.fstat(self._fd).st_size
        if size and size + incoming > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        """Move the full file aside; of several workers the one that holds the lock first does it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if not self._moved():
                self._path.replace(previous_file(self._path))
        finally:
            self._reopen()

    def _reopen(self) -> None:
        """Closing the old descriptor also gives back its lock."""
        os.close(self._fd)
        self._fd = self._open()

    def _moved(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (mine.st_ino, mine.st_dev) != (there.st_ino, there.st_dev)


def previous_file(path: Path) -> Path:
    """Where the file before the current one is kept."""
    return path.with_name(f"{path.name}.1")


def read_spans(path: Path) -> Iterator[SpanRecord]:
    """Every readable span, oldest file first; a line cut off by a crash is left out."""
    decoder = msgspec.json.Decoder(SpanRecord)
    for file in (previous_file(path), path):
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:
                continue


def _record(span: ReadableSpan) -> SpanRecord:
    context, parent, attributes = span.get_span_context(), span.parent, span.attributes
    return SpanRecord(
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_id=f"{parent.span_id:016x}" if parent else None,
        name=span.name,
        kind=_KINDS[span.kind],
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        error=span.status.status_code is StatusCode.ERROR,
        attributes=attributes if isinstance(attributes, dict) else dict(attributes or {}),
        events=[SpanEvent(event.name, event.timestamp) for event in span.events],
        service=str(span.resource.attributes.get("service.name", "")),
    )
