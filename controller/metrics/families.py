"""Families: how a metric is begun."""

from __future__ import annotations

from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

MIB: Final = 1 << 20
"""Bytes: Prometheus counts in base units."""


def gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    """Without a value yet."""
    return GaugeMetricFamily(name, about, labels=labels)


def counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    """Without a value yet; `name` ends in `_total`."""
    return CounterMetricFamily(name, about, labels=labels)
