"""Metrics of the controller: what is wanted and what there is, for HPA by prometheus-adapter and dashboards.

Worked out when they are asked for, from the newest snapshot: the record is the leader's, and every controller
tells the same. What is not known is absent, not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from model_registry.snapshot import Snapshot

LABELS = ("deployment", "model", "pool")
STATES = ("ready", "starting", "draining")


class ScalingCollector(Collector):
    """Asked by prometheus_client, in a thread of its own; snapshots never change."""

    def __init__(self, snapshot: Callable[[], Snapshot], leads: Callable[[], bool]) -> None:
        self._snapshot = snapshot
        self._leads = leads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family after the other."""
        snapshot = self._snapshot()
        leading = GaugeMetricFamily("enginehouse_controller_leading", "1 while this controller leads.")
        leading.add_metric((), float(self._leads()))
        version = GaugeMetricFamily("enginehouse_snapshot_version", "Registry version in use.")
        version.add_metric((), snapshot.version)
        wanted = GaugeMetricFamily(
            "enginehouse_wanted_replicas", "Replicas that there should be of a deployment.", labels=LABELS
        )
        replicas = GaugeMetricFamily(
            "enginehouse_replicas", "Replicas of a deployment, by state.", labels=(*LABELS, "state")
        )
        cold = GaugeMetricFamily(
            "enginehouse_cold_start_seconds",
            "Learned time from the decision to a ready replica.",
            labels=LABELS,
        )
        for status in snapshot.scaling.values():
            labels = (status.name, status.model, status.pool)
            wanted.add_metric(labels, status.wanted)
            for state in STATES:
                replicas.add_metric((*labels, state), getattr(status, state))
            if status.cold_start_s is not None:
                cold.add_metric(labels, status.cold_start_s)
        yield from (leading, version, wanted, replicas, cold)


class MetricsPage:
    """`GET /metrics` of one controller."""

    def __init__(self, collector: Collector, host: str, port: int) -> None:
        """Listens at once; port 0 takes any free one. Raises OSError where that cannot be."""
        registry = CollectorRegistry()
        registry.register(collector)
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
