"""Spans: a finished request as the tree that OpenTelemetry exporters take.

    server span (`chat <model>`)
    ├── route                     one per time an endpoint was chosen
    └── attempt                   one per try
        ├── first token           until the first token: network, engine queue, prefill
        └── finish                from the first token to the last: decode

Time that no child covers belongs to its parent: reading, authentication and tokenising to the server span.
The SDK's ReadableSpan is built directly, since a Tracer takes ids and clocks of its own and costs seven
times as much (docs/decisions/0004-traces-at-the-end.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import getrandbits

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.request_trace import AttemptTrace, Attributes, RequestTrace, is_our_error

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_NO_RESOURCE = Resource({})  # left out, the SDK would run its resource detectors for every span


class FinishedRequest(ReadableSpan):
    """A kept request on its way to the exporter's thread, where it is taken apart into its spans.

    A ReadableSpan, so that the SDK's batch processor carries it: one queue entry per request, dropped
    whole or not at all.
    """

    def __init__(
        self,
        trace: RequestTrace,
        status: int,
        error_type: str | None,
        attributes: Attributes,
        kept_because: str,
    ) -> None:
        context = SpanContext(
            int(trace.trace_id_hex, 16), getrandbits(64) or 1, is_remote=False, trace_flags=_SAMPLED
        )
        super().__init__("request", context, resource=_NO_RESOURCE)
        self.span_context = context
        self.trace = trace
        self.http_status = status
        self.error_type = error_type
        self.request_attributes = attributes
        self.kept_because = kept_because
        self.wall_offset_ns = time.time_ns() - time.monotonic_ns()
        """Makes Unix time of the trace's readings; taken once, so that no clock step bends a trace."""


@dataclass(frozen=True, slots=True)
class SpanTree:
    """Takes finished requests apart."""

    resource: Resource
    scope: InstrumentationScope
    capture_content: bool

    def spans(self, request: FinishedRequest) -> Iterator[ReadableSpan]:
        """The request's spans, the server span first."""
        yield self._server(request)
        for route in request.trace.routes:
            named = {f"enginehouse.route.{name}": value for name, value in route.attributes.items()}
            yield self._child(request, names.ROUTE_SPAN, route.start_ns, route.end_ns, named)
        for attempt in request.trace.attempts:
            yield from self._attempt(request, attempt)

    def _server(self, request: FinishedRequest) -> ReadableSpan:
        trace, offset = request.trace, request.wall_offset_ns
        attributes = self._kept(request.request_attributes)
        attributes[names.HTTP_RESPONSE_STATUS_CODE] = request.http_status
        attributes[names.KEPT_BECAUSE] = request.kept_because
        return ReadableSpan(
            name=_server_name(attributes),
            context=request.span_context,
            parent=_remote_parent(trace),
            resource=self.resource,
            attributes=_with_error(attributes, request.error_type),
            kind=SpanKind.SERVER,
            status=_server_status(request.http_status, request.error_type),
            start_time=trace.start_ns + offset,
            end_time=(trace.end_ns or trace.start_ns) + offset,
            instrumentation_scope=self.scope,
        )

    def _attempt(self, request: FinishedRequest, attempt: AttemptTrace) -> Iterator[ReadableSpan]:
        end_ns = attempt.end_ns or request.trace.end_ns or attempt.start_ns
        span = self._attempt_span(request, attempt, end_ns)
        yield span
        if attempt.first_token_ns is not None:
            first_ns, parent = attempt.first_token_ns, span.get_span_context()
            yield self._child(request, names.FIRST_TOKEN_SPAN, attempt.start_ns, first_ns, {}, parent)
            yield self._child(request, names.FINISH_SPAN, first_ns, end_ns, {}, parent)

    def _attempt_span(self, request: FinishedRequest, attempt: AttemptTrace, end_ns: int) -> ReadableSpan:
        offset = request.wall_offset_ns
        attributes = self._kept(attempt.attributes or {})
        attributes[names.ENDPOINT] = attempt.endpoint
        attributes[names.LANE] = attempt.lane
        attributes[names.TARGET] = attempt.target
        events = () if attempt.answered_ns is None else (_answered(attempt.answered_ns + offset),)
        return ReadableSpan(
            name=names.ATTEMPT_SPAN,
            context=_context(request, int(attempt.span_id, 16)),
            parent=request.span_context,
            resource=self.resource,
            attributes=_with_error(attributes, attempt.error),
            events=events,
            kind=SpanKind.CLIENT,
            status=_UNSET if attempt.error is None else Status(StatusCode.ERROR),
            start_time=attempt.start_ns + offset,
            end_time=end_ns + offset,
            instrumentation_scope=self.scope,
        )

    def _child(
        self,
        request: FinishedRequest,
        name: str,
        start_ns: int,
        end_ns: int,
        attributes: Attributes,
        parent: SpanContext | None = None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=_context(request, getrandbits(64) or 1),
            parent=parent or request.span_context,
            resource=self.resource,
            attributes=self._kept(attributes),
            start_time=start_ns + request.wall_offset_ns,
            end_time=end_ns + request.wall_offset_ns,
            status=_UNSET,
            instrumentation_scope=self.scope,
        )

    def _kept(self, attributes: Attributes) -> dict[str, AttributeValue]:
        return {
            name: value
            for name, value in attributes.items()
            if value is not None and (self.capture_content or name not in names.CONTENT_ATTRIBUTES)
        }


def _context(request: FinishedRequest, span_id: int) -> SpanContext:
    return SpanContext(request.span_context.trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)


def _remote_parent(trace: RequestTrace) -> SpanContext | None:
    if trace.parent is None:
        return None
    trace_id, span_id = int(trace.trace_id_hex, 16), int(trace.parent.span_id, 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=_SAMPLED)


def _server_name(attributes: Attributes) -> str:
    """`chat <model>`, or the HTTP route of what is not an inference request."""
    operation, model = attributes.get(names.OPERATION_NAME), attributes.get(names.REQUEST_MODEL)
    if operation and model:
        return f"{operation} {model}"
    route = attributes.get(names.HTTP_ROUTE)
    return (
        f"{attributes.get(names.HTTP_REQUEST_METHOD) or 'HTTP'} {route}"
        if route
        else str(operation or "request")
    )


def _server_status(status: int, error_type: str | None) -> Status:
    """A 4xx leaves a server span's status unset, as the HTTP conventions ask."""
    if is_our_error(status, error_type):
        return Status(StatusCode.ERROR, error_type)
    return _UNSET


def _with_error(attributes: dict[str, AttributeValue], error_type: str | None) -> dict[str, AttributeValue]:
    if error_type is not None:
        attributes[names.ERROR_TYPE] = error_type
    return attributes


def _answered(at_ns: int) -> Event:
    return Event(names.ANSWERED_EVENT, {}, at_ns)
