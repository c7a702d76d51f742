"""TraceExport: from finished requests to OTLP or the trace file, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, Self

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from telemetry.config import TelemetryConfig
from telemetry.span_record import SpanRecord
from telemetry.spans import FinishedRequest, SpanTree
from telemetry.trace_file import TraceFile

_QUEUE_REQUESTS = 4096
_BATCH_REQUESTS = 256
_EVERY_MS = 500


class SpanSink(Protocol):
    """Where spans go; called in the exporter's thread."""

    def write(self, spans: Sequence[SpanRecord]) -> bool:
        """Take them all; False when they are lost."""

    def close(self) -> None:
        """No more will come."""


class TraceExport:
    """Takes finished requests without waiting; the oldest is dropped when 4,096 are waiting."""

    def __init__(self, sink: SpanSink, tree: SpanTree) -> None:
        self._processor = BatchSpanProcessor(
            RequestExporter(sink, tree),
            max_queue_size=_QUEUE_REQUESTS,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=_BATCH_REQUESTS,
            export_timeout_millis=10_000,
        )
        self.add = self._processor.on_end

    @classmethod
    def of(cls, config: TelemetryConfig) -> Self | None:
        """What `config.exporter` asks for; None where nothing is exported."""
        sink = _sink(config)
        return None if sink is None else cls(sink, SpanTree(config.service_name, config.capture_content))

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
    """What the SDK's batch processor calls: takes requests apart for `sink`."""

    def __init__(self, sink: SpanSink, tree: SpanTree) -> None:
        self._sink = sink
        self._tree = tree

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write every span of these requests as one batch."""
        requests = [span for span in spans if isinstance(span, FinishedRequest)]
        written = self._sink.write([span for request in requests for span in self._tree.spans(request)])
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the sink."""
        self._sink.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing is held back between exports."""
        return True


def _sink(config: TelemetryConfig) -> SpanSink | None:
    if config.exporter == "file" and config.trace_file is not None:
        return TraceFile(config.trace_file, config.trace_file_max_bytes)
    if config.exporter == "otlp" and config.otlp_endpoint is not None:
        # Imported here: protobuf and an HTTP client, which others need not load.
        from telemetry.otlp import OtlpSink

        return OtlpSink(config.otlp_endpoint)
    return None
