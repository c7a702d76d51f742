"""OTLP: spans to an OpenTelemetry receiver, over HTTP.

Every value is passed explicitly, because the SDK reads `OTEL_*` variables for those that are not. The SDK's
ReadableSpan is built directly: a Tracer takes ids and clocks of its own, and costs seven times as much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from telemetry import names
from telemetry.span_record import SpanRecord

TIMEOUT_S = 5.0

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_SCOPE = InstrumentationScope("enginehouse", schema_url=names.SCHEMA_URL)
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}


class OtlpSink:
    """Sends spans to `endpoint`, the full URL of an OTLP/HTTP trace receiver."""

    def __init__(self, endpoint: str) -> None:
        self._exporter = OTLPSpanExporter(
            endpoint=endpoint, headers={}, timeout=TIMEOUT_S, compression=Compression.Gzip
        )

    def write(self, spans: Sequence[SpanRecord]) -> bool:
        """Send them as one request; False when the receiver did not take them."""
        return self._exporter.export([_readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Give up retries and close the connection."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _readable(span: SpanRecord) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, is_remote=False),
        parent=_context(span.trace_id, span.parent_id, is_remote=span.kind == "server")
        if span.parent_id
        else None,
        resource=_resource(span.service),
        attributes=span.attributes,
        events=[Event(event.name, {}, event.at_ns) for event in span.events],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.attributes.get(names.ERROR_TYPE)) if span.error else _UNSET,
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=is_remote, trace_flags=_SAMPLED)


@lru_cache(maxsize=4)
def _resource(service: str) -> Resource:
    attributes = {
        "service.name": service,
        "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource(attributes, names.SCHEMA_URL)
