"""What a request's trace looks like, and which traces are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.request_trace import RequestTrace
from telemetry.trace_context import parse_traceparent
from telemetry.tracing import Tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
Make = Callable[..., Any]

CHAT: Mapping[str, AttributeValue | None] = {
    names.OPERATION_NAME: "chat",
    names.REQUEST_MODEL: "tiny",
    names.USAGE_OUTPUT_TOKENS: 3,
    names.REQUEST_SEED: None,
}


def serve(tracing: Tracing, traceparent: str | None = None, error: str | None = None) -> RequestTrace:
    """One request with one attempt, from begin to just before its finish."""
    trace = tracing.begin(traceparent, None)
    trace.route_finished(trace.route_started(), reason="least_loaded")
    attempt = trace.attempt("d@h:1", "tensorrt_llm", "m")
    attempt.answered()
    if error is None:
        attempt.first_token()
    attempt.finished(error)
    return trace


def test_a_request_becomes_a_tree_gateway_route_attempt_first_token_finish(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    serve(kept.tracing).finish(200, None, CHAT)
    server, attempt = kept.named("chat tiny"), kept.named("attempt")
    assert server.parent_id is None
    assert {"route": server.span_id, "attempt": server.span_id} == {
        name: kept.named(name).parent_id for name in ("route", "attempt")
    }
    assert {attempt.span_id} == {kept.named(name).parent_id for name in ("first token", "finish")}
    assert {server.trace_id} == {span.trace_id for span in kept.spans()}
    assert (server.kind, attempt.kind, kept.named("finish").kind) == ("server", "client", "internal")
    assert [event.name for event in attempt.events] == ["response headers"]


def test_children_lie_within_their_parents_and_the_attempt_is_covered_without_a_gap(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    before_ns = time.time_ns()
    serve(kept.tracing).finish(200, None, CHAT)
    by_id = {span.span_id: span for span in kept.spans()}
    for span in by_id.values():
        outer = by_id.get(span.parent_id or "", span)
        assert outer.start_ns <= span.start_ns <= span.end_ns <= outer.end_ns
    attempt, first, finish = (kept.named(name) for name in ("attempt", "first token", "finish"))
    assert (attempt.start_ns, first.end_ns, finish.end_ns) == (
        first.start_ns,
        finish.start_ns,
        attempt.end_ns,
    )
    assert abs(kept.named("chat tiny").start_ns - before_ns) < 5e9


def test_attributes_are_kept_without_those_that_are_none(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    serve(kept.tracing).finish(200, None, CHAT)
    attributes = kept.named("chat tiny").attributes
    assert attributes[names.USAGE_OUTPUT_TOKENS] == 3
    assert attributes[names.HTTP_RESPONSE_STATUS_CODE] == 200
    assert names.REQUEST_SEED not in attributes
    assert kept.named("route").attributes["enginehouse.route.reason"] == "least_loaded"
    assert kept.named("attempt").attributes[names.ENDPOINT] == "d@h:1"


@pytest.mark.parametrize("capture", [True, False])
def test_content_is_recorded_only_when_switched_on(traced: Make, capture: bool) -> None:
    kept = traced(sample_ratio=1, capture_content=capture)
    serve(kept.tracing).finish(200, None, {**CHAT, names.INPUT_MESSAGES: "a secret prompt"})
    assert capture is ("a secret prompt" in kept.path.read_text() if kept.spans() else None)


def test_the_callers_context_is_honoured_and_sent_on(traced: Make) -> None:
    kept = traced(sample_ratio=0)
    trace = kept.tracing.begin(f"00-{TRACE}-{SPAN}-01", "vendor=1")
    attempt = trace.attempt("d@h:1", "tensorrt_llm", "m")
    sent = parse_traceparent(attempt.traceparent)
    trace.finish(200, None, CHAT)
    assert sent is not None
    assert (sent.trace_id, sent.sampled, trace.tracestate) == (TRACE, True, "vendor=1")
    assert sent.span_id == kept.named("attempt").span_id
    assert (kept.named("chat tiny").trace_id, kept.named("chat tiny").parent_id) == (TRACE, SPAN)


def test_a_caller_that_does_not_sample_is_followed(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    trace = serve(kept.tracing, f"00-{TRACE}-{SPAN}-00")
    trace.finish(200, None, CHAT)
    assert (trace.attempts[0].traceparent or "").endswith("-00")
    assert kept.spans() == []


def test_without_an_exporter_the_callers_context_is_sent_on_unchanged() -> None:
    tracing = Tracing(TelemetryConfig())
    header = f"00-{TRACE}-{SPAN}-01"
    assert header == tracing.begin(header, None).attempt("e", "ensemble", "m").traceparent
    assert tracing.begin(None, None).attempt("e", "ensemble", "m").traceparent is None
    serve(tracing).finish(200, None, CHAT)
    assert tracing.close()


@pytest.mark.parametrize(
    ("status", "error_type", "kept_because"),
    [
        (200, None, None),
        (404, "model_not_found", None),
        (429, "rate_limited", None),
        (500, None, "error"),
        (503, "no_endpoints", "error"),
        (200, "StreamBrokenError", "error"),
    ],
)
def test_our_failures_are_kept_whether_sampled_or_not(
    traced: Make, status: int, error_type: str | None, kept_because: str | None
) -> None:
    kept = traced(sample_ratio=0)
    serve(kept.tracing, error=error_type).finish(status, error_type, CHAT)
    found = {span.name: span for span in kept.spans()}
    assert kept_because == (found["chat tiny"].attributes[names.KEPT_BECAUSE] if found else None)
    assert not found or found["chat tiny"].error


def test_errors_are_not_kept_when_switched_off(traced: Make) -> None:
    kept = traced(sample_ratio=0, keep_errors=False)
    serve(kept.tracing).finish(500, "boom", CHAT)
    assert kept.spans() == []


def test_slow_requests_are_kept(traced: Make) -> None:
    kept = traced(sample_ratio=0, keep_slower_than_s=3600.0)
    trace = serve(kept.tracing)
    serve(kept.tracing).finish(200, None, CHAT)
    trace.start_ns -= 3600 * 10**9
    trace.finish(200, None, CHAT)
    assert kept.named("chat tiny").attributes[names.KEPT_BECAUSE] == "slow"


def test_the_ratio_decides_by_trace_id_and_holds_over_many(traced: Make) -> None:
    tracing = traced(sample_ratio=0.25).tracing
    sampled = [tracing.begin(None, None) for _ in range(4000)]
    assert 800 < sum(trace.sampled for trace in sampled) < 1200
    bound = 0.25 * 2**64
    assert all(trace.sampled is (int(trace.trace_id_hex[16:], 16) < bound) for trace in sampled)


def test_a_description_is_asked_for_only_when_the_trace_is_kept(traced: Make) -> None:
    asked: list[str] = []

    def describe() -> Mapping[str, AttributeValue]:
        asked.append("asked")
        return {}

    serve(traced(sample_ratio=0).tracing).finish(200, None, describe)
    assert asked == []
    serve(traced(sample_ratio=1).tracing).finish(200, None, describe)
    assert asked == ["asked"]


def test_a_failed_try_is_followed_by_the_next_in_one_trace(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    trace = serve(kept.tracing, error="ServerUnreachableError")
    trace.attempt("e@h:2", "tensorrt_llm", "m").first_token()
    trace.finish(200, None, CHAT)
    attempts = [span for span in kept.spans() if span.name == "attempt"]
    assert [span.error for span in attempts] == [True, False]
    assert attempts[0].attributes[names.ERROR_TYPE] == "ServerUnreachableError"
    assert attempts[1].end_ns == kept.named("chat tiny").end_ns, "an open attempt ends with its request"
    assert not kept.named("chat tiny").error


def test_the_first_finish_counts(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    trace = serve(kept.tracing)
    trace.finish(200, None, CHAT)
    trace.finish(500, "late", CHAT)
    assert kept.named("chat tiny").attributes[names.HTTP_RESPONSE_STATUS_CODE] == 200


def test_what_waits_is_exported_by_close(traced: Make) -> None:
    kept = traced(sample_ratio=1)
    serve(kept.tracing).finish(200, None, CHAT)
    assert kept.tracing.close()
    assert "chat tiny" in kept.path.read_text()
