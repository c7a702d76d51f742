"""QueueSeries: what the requests of one model under one profile add to the metrics of waiting."""

from __future__ import annotations

from telemetry.instruments import Instruments
from telemetry.metric_labels import OTHER, REFUSAL_REASONS
from telemetry.metric_series import CounterSeries, HistogramSeries


class QueueSeries:
    """Plain numbers until `flush`."""

    def __init__(self, instruments: Instruments, model: str, profile: str) -> None:
        self._instruments = instruments
        self._labels = model, profile
        self._requests = 0
        self._tokens = 0
        self._wait = HistogramSeries(instruments.queue_wait.labels(model, profile))
        self._refusals = {
            reason: CounterSeries(instruments.refusals.labels(model, profile, reason))
            for reason in (*sorted(REFUSAL_REASONS), OTHER)
        }

    def entered(self, tokens: int) -> None:
        """A request begins to wait."""
        self._requests += 1
        self._tokens += tokens

    def left(self, tokens: int, waited_s: float) -> None:
        """A request does not wait any more."""
        self._requests -= 1
        self._tokens -= tokens
        self._wait.observe(waited_s)

    def refused(self, reason: str) -> None:
        """A request was refused."""
        (self._refusals.get(reason) or self._refusals[OTHER]).value += 1

    def flush(self) -> None:
        """Write all of them."""
        self._instruments.queued_requests.labels(*self._labels).set(self._requests)
        self._instruments.queued_tokens.labels(*self._labels).set(self._tokens)
        self._wait.flush()
        for series in self._refusals.values():
            series.flush()
