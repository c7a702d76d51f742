"""TraceExport: from finished requests to OTLP or the trace file, in a thread of its own.

Every value is passed explicitly, because the SDK reads `OTEL_*` variables for those that are not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Self

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__ as sdk_version

from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.spans import FinishedRequest, SpanTree
from telemetry.trace_file import TraceFileExporter

_QUEUE_REQUESTS = 4096
_BATCH_REQUESTS = 256
_EVERY_MS = 500
_OTLP_TIMEOUT_S = 5.0


class TraceExport:
    """Takes finished requests without waiting; the oldest is dropped when 4,096 are waiting."""

    def __init__(self, exporter: SpanExporter, tree: SpanTree) -> None:
        self._processor = BatchSpanProcessor(
            RequestExporter(exporter, tree),
            max_queue_size=_QUEUE_REQUESTS,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=_BATCH_REQUESTS,
            export_timeout_millis=_OTLP_TIMEOUT_S * 1000,
        )
        self.add = self._processor.on_end

    @classmethod
    def of(cls, config: TelemetryConfig) -> Self | None:
        """What `config.exporter` asks for; None where nothing is exported."""
        if config.exporter is None:
            return None
        scope = InstrumentationScope("enginehouse", schema_url=names.SCHEMA_URL)
        return cls(_exporter(config), SpanTree(_resource(config), scope, config.capture_content))

    def flush(self) -> None:
        """Export what is waiting; blocks."""
        self._processor.force_flush()

    def close(self, timeout_s: float) -> bool:
        """Export what is waiting and stop. False when `timeout_s` was not enough."""
        closing = threading.Thread(target=self._processor.shutdown, name="trace-export-close", daemon=True)
        closing.start()
        closing.join(timeout_s)
        return not closing.is_alive()


class RequestExporter(SpanExporter):
    """Takes requests apart before `exporter` sees them."""

    def __init__(self, exporter: SpanExporter, tree: SpanTree) -> None:
        self._exporter = exporter
        self._tree = tree

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export every span of these requests as one batch."""
        requests = (span for span in spans if isinstance(span, FinishedRequest))
        return self._exporter.export([span for request in requests for span in self._tree.spans(request)])

    def shutdown(self) -> None:
        """Stop `exporter`."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush `exporter`."""
        return self._exporter.force_flush(timeout_millis)


def _exporter(config: TelemetryConfig) -> SpanExporter:
    if config.exporter == "file" and config.trace_file is not None:
        return TraceFileExporter(config.trace_file, config.trace_file_max_bytes)
    # Imported here: it brings in protobuf and requests, 100 ms that the file exporter does not need.
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(
        endpoint=config.otlp_endpoint, timeout=_OTLP_TIMEOUT_S, compression=Compression.Gzip
    )


def _resource(config: TelemetryConfig) -> Resource:
    attributes = {
        "service.name": config.service_name,
        "service.instance.id": f"{os.uname().nodename}:{os.getpid()}",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
    }
    return Resource(attributes, names.SCHEMA_URL)
