"""Series: numbers counted in plain Python on the hot path and written to Prometheus now and then.

Writing straight to prometheus_client costs 13 µs a request with several workers (each value is a locked
write to a mapped file); counting here costs a tenth. What was counted since the last `flush` is lost when
the process is killed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from prometheus_client import Counter, Histogram


class Flushable(Protocol):
    """Holds numbers that Prometheus does not know yet."""

    def flush(self) -> None:
        """Write them."""


class BulkHistogram(Histogram):
    """A histogram that also takes observations which were sorted into its buckets elsewhere."""

    def observe_many(self, counts: Sequence[int], total: float) -> None:
        """Add `counts[i]` observations to bucket i (the last is +Inf), `total` being their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)

    @property
    def bounds(self) -> tuple[float, ...]:
        """Upper bounds without +Inf."""
        return tuple(self._upper_bounds[:-1])


class CounterSeries:
    """One label combination of a counter. Add to `value`."""

    __slots__ = ("_counter", "value")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.value = 0.0

    def flush(self) -> None:
        """Write what was added since the last time."""
        if self.value:
            self._counter.inc(self.value)
            self.value = 0.0


class HistogramSeries:
    """One label combination of a histogram."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: BulkHistogram) -> None:
        self._histogram = histogram
        self._bounds = histogram.bounds
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def flush(self) -> None:
        """Write what was observed since the last time."""
        if any(self._counts):
            self._histogram.observe_many(self._counts, self._total)
            self._counts = [0] * len(self._counts)
            self._total = 0.0
