"""RequestTrace: when each step of one request began and ended.

While a request runs its trace is a handful of clock readings. Only at its end is it decided whether the
trace is kept, and only kept traces become spans, in the exporter's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import getrandbits
from time import monotonic_ns
from typing import Protocol

from msgspec import Struct
from opentelemetry.util.types import AttributeValue

from telemetry.trace_context import TraceParent

Attributes = Mapping[str, AttributeValue | None]
"""Attributes that are None are left out."""
Description = Attributes | Callable[[], Attributes]
"""A callable is called only for a trace that is kept: others then pay nothing for it."""


class Keeper(Protocol):
    """Takes finished traces."""

    records: bool
    """Whether any trace can be kept."""

    def finished(
        self, trace: RequestTrace, status: int, error_type: str | None, description: Description
    ) -> None:
        """Keep `trace` or forget it."""


class Interval(Struct, frozen=True, gc=False):
    """A step with what is known about it; times are `time.monotonic_ns`."""

    start_ns: int
    end_ns: int
    attributes: Attributes


class AttemptTrace:
    """One try on one endpoint."""

    __slots__ = (
        "answered_ns",
        "attributes",
        "end_ns",
        "endpoint",
        "error",
        "first_token_ns",
        "lane",
        "on_first_token",
        "span_id",
        "start_ns",
        "target",
        "traceparent",
    )

    def __init__(self, endpoint: str, lane: str, target: str, span_id: str, traceparent: str | None) -> None:
        self.endpoint = endpoint
        self.lane = lane
        self.target = target
        self.span_id = span_id
        self.traceparent = traceparent
        """W3C header to send to the server; None only where nothing is recorded and the caller sent none."""
        self.answered_ns: int | None = None
        self.first_token_ns: int | None = None
        self.on_first_token: Callable[[], None] | None = None
        """Called once, when the first token is here; nobody is told after `finished`."""
        self.end_ns: int | None = None
        self.error: str | None = None
        self.attributes: Attributes | None = None
        self.start_ns = monotonic_ns()

    def answered(self) -> None:
        """The server's response headers are here."""
        self.answered_ns = monotonic_ns()

    def first_token(self) -> None:
        """The first token is here; later calls change nothing."""
        if self.first_token_ns is None:
            self.first_token_ns = monotonic_ns()
            if self.on_first_token is not None:
                self.on_first_token()

    def finished(self, error: str | None, attributes: Attributes | None = None) -> None:
        """The attempt is over; `error` is its `error.type`, None for success."""
        self.end_ns = monotonic_ns()
        self.error = error
        self.attributes = attributes
        self.on_first_token = None


class RequestTrace:
    """The steps of one request, until `finish`."""

    __slots__ = (
        "_keeper",
        "_routing",
        "attempts",
        "end_ns",
        "parent",
        "routes",
        "sampled",
        "start_ns",
        "trace_id_hex",
        "tracestate",
    )

    def __init__(
        self,
        keeper: Keeper,
        trace_id_hex: str,
        parent: TraceParent | None,
        tracestate: str | None,
        sampled: bool,
    ) -> None:
        self._keeper = keeper
        self.trace_id_hex = trace_id_hex
        self.parent = parent
        self.tracestate = tracestate
        """Header to send on unchanged beside `traceparent`."""
        self.sampled = sampled
        self.routes: list[Interval] = []
        self.attempts: list[AttemptTrace] = []
        self._routing: list[int] = []
        """Starts of the choices under way; several, where a request asks for several answers."""
        self.end_ns: int | None = None
        self.start_ns = monotonic_ns()

    def route_started(self) -> int:
        """Choosing an endpoint, or waiting for one, begins; returns what `route_finished` wants."""
        started_ns = monotonic_ns()
        self._routing.append(started_ns)
        return started_ns

    def route_finished(self, started_ns: int, **attributes: AttributeValue | None) -> None:
        """Choosing ended; names are given without the `enginehouse.route.` they get in the span."""
        self._routing.remove(started_ns)
        self.routes.append(Interval(started_ns, monotonic_ns(), attributes))

    def attempt(self, endpoint: str, lane: str, target: str) -> AttemptTrace:
        """Begin a try on `endpoint`; `target` is the model's name on that server."""
        span_id = f"{getrandbits(64) or 1:016x}"
        attempt = AttemptTrace(endpoint, lane, target, span_id, self._traceparent(span_id))
        self.attempts.append(attempt)
        return attempt

    def finish(self, status: int, error_type: str | None, attributes: Description) -> None:
        """Close the trace and hand it to the exporter if it is to be kept; the first call counts.

        `status` is the HTTP status sent; `error_type` also covers what went wrong after a 200 was sent.
        """
        if self.end_ns is not None:
            return
        self.end_ns = monotonic_ns()
        for started_ns in list(self._routing):
            self.route_finished(started_ns)
        self._keeper.finished(self, status, error_type, attributes)

    def _traceparent(self, span_id: str) -> str | None:
        if self._keeper.records:
            return f"00-{self.trace_id_hex}-{span_id}-{'01' if self.sampled else '00'}"
        if self.parent is None:
            return None
        return f"00-{self.trace_id_hex}-{self.parent.span_id}-{'01' if self.sampled else '00'}"


def is_our_error(status: int, error_type: str | None) -> bool:
    """A failure that is not the client's own: 5xx, or an answer that broke after a good status."""
    return status >= 500 or (error_type is not None and status < 400)
