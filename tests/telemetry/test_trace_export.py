"""OTLP export, against a real HTTP server that decodes what it gets."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.tracing import Tracing


class Collector:
    """An OTLP/HTTP receiver."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.release = threading.Event()
        self.release.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.release.wait(10)
                collector.requests.append(ExportTraceServiceRequest.FromString(gzip.decompress(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Keep the test's output quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def finish_one(tracing: Tracing) -> None:
    trace = tracing.begin(None, None)
    trace.attempt("d@h:1", "tensorrt_llm", "m").first_token()
    trace.finish(
        200, None, {names.OPERATION_NAME: "chat", names.REQUEST_MODEL: "tiny", names.REQUEST_SEED: 3}
    )


def test_spans_arrive_at_an_otlp_receiver(collector: Collector) -> None:
    config = TelemetryConfig(exporter="otlp", otlp_endpoint=collector.url, sample_ratio=1, service_name="gw")
    tracing = Tracing(config)
    finish_one(tracing)
    assert tracing.close()
    (request,) = collector.requests
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert {span.name for span in scope.spans} == {"chat tiny", "attempt", "first token", "finish"}
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "gw"
    assert scope.schema_url == names.SCHEMA_URL
    server = next(span for span in scope.spans if span.name == "chat tiny")
    assert next(a.value.int_value for a in server.attributes if a.key == names.REQUEST_SEED) == 3


def test_a_receiver_that_hangs_holds_up_neither_requests_nor_the_end(collector: Collector) -> None:
    collector.release.clear()
    tracing = Tracing(TelemetryConfig(exporter="otlp", otlp_endpoint=collector.url, sample_ratio=1))
    began_s = time.monotonic()
    for _ in range(10_000):
        finish_one(tracing)
    assert not tracing.close(timeout_s=0.2)
    assert time.monotonic() - began_s < 5
