"""Tracing: begins the trace of each request and keeps those worth keeping."""

from __future__ import annotations

from random import getrandbits

from telemetry.config import TelemetryConfig
from telemetry.request_trace import Description, RequestTrace, is_our_error
from telemetry.spans import FinishedRequest
from telemetry.trace_context import parse_traceparent, usable_tracestate
from telemetry.trace_export import TraceExport

_LOW_BITS = 2**64 - 1


class Tracing:
    """Begins traces and keeps those worth keeping. One per process."""

    def __init__(self, config: TelemetryConfig) -> None:
        self._export = TraceExport.of(config)
        self._ratio_bound = round(config.sample_ratio * 2**64)
        self._keep_errors = config.keep_errors
        slow_s = config.keep_slower_than_s
        self._slow_ns = None if slow_s is None else int(slow_s * 1e9)
        self.records = self._export is not None

    def begin(self, traceparent: str | None, tracestate: str | None) -> RequestTrace:
        """Start the trace of a request that came with these headers.

        The caller's sampling decision is followed; without one, the low 64 bits of the trace id decide
        (as OpenTelemetry's TraceIdRatioBased does).
        """
        if traceparent is not None and (parent := parse_traceparent(traceparent)) is not None:
            state = usable_tracestate(tracestate)
            return RequestTrace(self, parent.trace_id, parent, state, parent.sampled)
        trace_id = getrandbits(128) or 1
        sampled = trace_id & _LOW_BITS < self._ratio_bound
        return RequestTrace(self, f"{trace_id:032x}", None, None, sampled)

    def finished(
        self, trace: RequestTrace, status: int, error_type: str | None, description: Description
    ) -> None:
        """Keep `trace` or forget it; called once by `RequestTrace.finish`."""
        if self._export is None or (reason := self._kept_because(trace, status, error_type)) is None:
            return
        attributes = description() if callable(description) else description
        self._export.add(FinishedRequest(trace, status, error_type, attributes, reason))

    def _kept_because(self, trace: RequestTrace, status: int, error_type: str | None) -> str | None:
        if trace.sampled:
            return "sampled"
        if self._keep_errors and is_our_error(status, error_type):
            return "error"
        end_ns = trace.end_ns or trace.start_ns
        if self._slow_ns is not None and end_ns - trace.start_ns >= self._slow_ns:
            return "slow"
        return None

    def flush(self) -> None:
        """Export what is waiting; blocks."""
        if self._export is not None:
            self._export.flush()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Export what is waiting and stop; blocks up to `timeout_s`. False: some was not exported."""
        return self._export is None or self._export.close(timeout_s)
