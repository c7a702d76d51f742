"""SharedTrace: steps that several requests take together, noted in the trace of each."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns

from opentelemetry.util.types import AttributeValue

from telemetry.request_trace import AttemptTrace, Interval, RequestTrace


class SharedTrace:
    """The routing and the attempts of one request batch. What the server is told names the first request."""

    __slots__ = ("_traces",)

    def __init__(self, traces: Sequence[RequestTrace]) -> None:
        self._traces = traces

    @property
    def tracestate(self) -> str | None:
        return self._traces[0].tracestate

    def route_started(self) -> int:
        """As `RequestTrace.route_started`."""
        return monotonic_ns()

    def route_finished(self, started_ns: int, **attributes: AttributeValue | None) -> None:
        """As `RequestTrace.route_finished`."""
        step = Interval(started_ns, monotonic_ns(), attributes)
        for trace in self._open():
            trace.routes.append(step)

    def attempt(self, endpoint: str, lane: str, target: str) -> AttemptTrace:
        """As `RequestTrace.attempt`."""
        attempt = self._traces[0].attempt(endpoint, lane, target)
        for trace in self._open():
            if trace is not self._traces[0]:
                trace.attempts.append(attempt)
        return attempt

    def _open(self) -> list[RequestTrace]:
        """A trace whose request has ended is exported already."""
        return [trace for trace in self._traces if trace.end_ns is None]
