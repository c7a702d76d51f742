"""Spans: a finished request taken apart into its tree.

    server span (`chat <model>`)
    ├── route                     one per time an endpoint was chosen
    └── attempt                   one per try
        ├── first token           until the first token: network, engine queue, prefill
        └── finish                from the first token to the last: decode

Time that no child covers belongs to its parent: reading, authentication and tokenising to the server span.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import getrandbits

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

from telemetry import names
from telemetry.request_trace import AttemptTrace, Attributes, Interval, RequestTrace, is_our_error
from telemetry.span_record import SpanEvent, SpanRecord

# The batch processor carries whatever is marked as sampled and looks no further.
_CARRIED = SpanContext(trace_id=1, span_id=1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
_NO_RESOURCE = Resource({})  # left out, the SDK would run its resource detectors for every span


class FinishedRequest(ReadableSpan):
    """A kept request on its way to the exporter's thread, where it is taken apart.

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
        super().__init__("request", _CARRIED, resource=_NO_RESOURCE)
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

    service: str
    capture_content: bool

    def spans(self, request: FinishedRequest) -> Iterator[SpanRecord]:
        """The request's spans, the server span first."""
        server = self._server(request)
        yield server
        for route in request.trace.routes:
            yield self._route(request, route, server.span_id)
        for attempt in request.trace.attempts:
            yield from self._attempt(request, attempt, server.span_id)

    def _server(self, request: FinishedRequest) -> SpanRecord:
        trace, offset = request.trace, request.wall_offset_ns
        attributes = self._shown(request.request_attributes)
        attributes[names.HTTP_RESPONSE_STATUS_CODE] = request.http_status
        attributes[names.KEPT_BECAUSE] = request.kept_because
        if request.error_type is not None:
            attributes[names.ERROR_TYPE] = request.error_type
        return SpanRecord(
            trace_id=trace.trace_id_hex,
            span_id=_new_id(),
            name=_server_name(attributes),
            kind="server",
            start_ns=trace.start_ns + offset,
            end_ns=(trace.end_ns or trace.start_ns) + offset,
            parent_id=None if trace.parent is None else trace.parent.span_id,
            # A 4xx leaves a server span's status unset, as the HTTP conventions ask.
            error=is_our_error(request.http_status, request.error_type),
            attributes=attributes,
            service=self.service,
        )

    def _route(self, request: FinishedRequest, route: Interval, parent_id: str) -> SpanRecord:
        child = self._child(request, names.ROUTE_SPAN, route.start_ns, route.end_ns, parent_id)
        for name, value in route.attributes.items():
            if value is not None:
                child.attributes[f"enginehouse.route.{name}"] = value
        return child

    def _attempt(
        self, request: FinishedRequest, attempt: AttemptTrace, parent_id: str
    ) -> Iterator[SpanRecord]:
        end_ns = attempt.end_ns or request.trace.end_ns or attempt.start_ns
        span = self._child(request, names.ATTEMPT_SPAN, attempt.start_ns, end_ns, parent_id)
        span.span_id, span.kind = attempt.span_id, "client"
        span.attributes = self._shown(attempt.attributes or {})
        span.attributes[names.ENDPOINT] = attempt.endpoint
        span.attributes[names.LANE] = attempt.lane
        span.attributes[names.TARGET] = attempt.target
        if attempt.error is not None:
            span.error = True
            span.attributes[names.ERROR_TYPE] = attempt.error
        if attempt.answered_ns is not None:
            span.events = (SpanEvent(names.ANSWERED_EVENT, attempt.answered_ns + request.wall_offset_ns),)
        yield span
        if (first_ns := attempt.first_token_ns) is not None:
            yield self._child(request, names.FIRST_TOKEN_SPAN, attempt.start_ns, first_ns, span.span_id)
            yield self._child(request, names.FINISH_SPAN, first_ns, end_ns, span.span_id)

    def _child(
        self, request: FinishedRequest, name: str, start_ns: int, end_ns: int, parent_id: str
    ) -> SpanRecord:
        return SpanRecord(
            trace_id=request.trace.trace_id_hex,
            span_id=_new_id(),
            name=name,
            kind="internal",
            start_ns=start_ns + request.wall_offset_ns,
            end_ns=end_ns + request.wall_offset_ns,
            parent_id=parent_id,
            service=self.service,
        )

    def _shown(self, attributes: Attributes) -> dict[str, AttributeValue]:
        shown: dict[str, AttributeValue] = {
            name: value for name, value in attributes.items() if value is not None
        }
        if not self.capture_content:
            for name in names.CONTENT_ATTRIBUTES & shown.keys():
                del shown[name]
        return shown


def _new_id() -> str:
    return f"{getrandbits(64) or 1:016x}"


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
