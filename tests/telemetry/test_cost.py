"""What telemetry costs a request, in CPU time of the thread that serves it and of the whole process.

The bars are several times what was measured; `python tests/telemetry/test_cost.py` prints the figures, those
of docs/decisions/0004 among them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, set_span_in_context
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.metrics import Metrics
from telemetry.tracing import Tracing

BATCH, ROUNDS = 250, 20


def describe() -> Mapping[str, AttributeValue]:
    """The attributes of a chat request."""
    return {
        names.OPERATION_NAME: "chat",
        names.PROVIDER_NAME: "enginehouse",
        names.REQUEST_MODEL: "tiny",
        names.RESPONSE_MODEL: "tiny",
        names.REQUEST_STREAM: True,
        names.REQUEST_MAX_TOKENS: 100,
        names.REQUEST_TEMPERATURE: 0.7,
        names.USAGE_INPUT_TOKENS: 20,
        names.USAGE_OUTPUT_TOKENS: 30,
        names.RESPONSE_FINISH_REASONS: ["stop"],
        names.TENANT: "t",
        names.PROFILE: "latency",
        names.REQUEST_ID: "0123456789abcdef",
        names.HTTP_ROUTE: "/v1/chat/completions",
        names.HTTP_REQUEST_METHOD: "POST",
    }


def traced_request(tracing: Tracing) -> None:
    """Every step of a request that is served at its first try."""
    trace = tracing.begin(None, None)
    trace.route_finished(trace.route_started(), reason="least_loaded", candidates=3)
    attempt = trace.attempt("chat@10.0.0.1:8000", "tensorrt_llm", "tensorrt_llm")
    attempt.answered()
    attempt.first_token()
    attempt.finished(None)
    trace.finish(200, None, describe)


def counted_request(metrics: Metrics) -> None:
    """Every call that such a request makes on the metrics."""
    metrics.started()
    metrics.first_token("tiny", "latency", late=False)
    metrics.attempt("chat@10.0.0.1:8000", "ok")
    metrics.finish(
        "tiny",
        "latency",
        "ok",
        duration_s=0.5,
        ttft_s=0.02,
        itl_s=0.01,
        prompt_tokens=20,
        completion_tokens=30,
    )
    metrics.engine("tiny", "latency", 0.01, 0.01)


def cost_us(request: Callable[[], object], settle: Callable[[], object]) -> tuple[float, float]:
    """CPU µs per request of this thread, and with `settle` of the process; best of 20 rounds."""
    thread = process = float("inf")
    for _ in range(ROUNDS):
        process_s, thread_s = time.process_time(), time.thread_time()
        for _ in range(BATCH):
            request()
        thread = min(thread, (time.thread_time() - thread_s) / BATCH * 1e6)
        settle()
        process = min(process, (time.process_time() - process_s) / BATCH * 1e6)
    return thread, process


def tracing_cost_us(folder: Path, sample_ratio: float) -> tuple[float, float]:
    """The cost of a trace that goes to the trace file."""
    config = TelemetryConfig(exporter="file", trace_file=folder / "traces", sample_ratio=sample_ratio)
    tracing = Tracing(config)
    try:
        return cost_us(lambda: traced_request(tracing), tracing.flush)
    finally:
        tracing.close()


def metrics_cost_us() -> tuple[float, float]:
    """The cost of counting a request."""
    metrics = Metrics()
    metrics.learn(models=["tiny"], profiles=["latency"], endpoints=["chat@10.0.0.1:8000"])
    return cost_us(lambda: counted_request(metrics), metrics.flush)


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def sdk_tracer_cost_us() -> tuple[float, float]:
    """The same five spans by the SDK's Tracer, exported to nowhere."""
    provider = TracerProvider(resource=Resource({}))
    processor = BatchSpanProcessor(_Nowhere(), max_queue_size=8192, schedule_delay_millis=60_000)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("measure")

    def request() -> ReadableSpan:
        server = tracer.start_span("chat", kind=SpanKind.SERVER, attributes=describe())
        inside = set_span_in_context(server)
        for name in ("route", "attempt", "first token", "finish"):
            tracer.start_span(name, context=inside, attributes={"endpoint": "e", "lane": "l"}).end()
        server.end()
        assert isinstance(server, ReadableSpan)
        return server

    try:
        return cost_us(request, processor.force_flush)
    finally:
        provider.shutdown()


def test_a_trace_that_is_not_kept_costs_next_to_nothing(tmp_path: Path) -> None:
    assert tracing_cost_us(tmp_path, 0)[0] < 15


def test_a_kept_trace_costs_the_serving_thread_little_and_the_process_not_much(tmp_path: Path) -> None:
    thread, process = tracing_cost_us(tmp_path, 1)
    assert thread < 30
    assert process < 100


def test_counting_a_request_is_cheap() -> None:
    assert metrics_cost_us()[0] < 8


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "trace, not kept": tracing_cost_us(Path(folder), 0),
            "trace, 10 % kept (the default)": tracing_cost_us(Path(folder), 0.1),
            "trace, all kept, to the trace file": tracing_cost_us(Path(folder), 1),
            "the same spans by the SDK's Tracer, to nowhere": sdk_tracer_cost_us(),
            "metrics": metrics_cost_us(),
        }
    for name, (thread, process) in rows.items():
        print(f"{name:48} {thread:6.1f} µs in the serving thread {process:6.1f} µs in all")


if __name__ == "__main__":
    main()
