"""Collector: every metric of a controller, worked out when it is asked for.

What is wanted and what there is comes from the registry's newest snapshot: the record is the leader's, and
every controller tells the same. What servers measured and what became of replicas only the leader knows, and
only it tells. What is not known is absent, not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from controller.metrics.builds import BuildCounts, build_families
from controller.metrics.families import gauge
from controller.metrics.pools import pool_families
from controller.metrics.rollouts import rollout_families
from controller.metrics.scaling import change_families, scaling_families
from controller.replicas.changes import Change
from controller.residency.pool import Memory
from model_registry.snapshot import Snapshot


class Sources(NamedTuple):
    """Where the figures come from. Each is asked in a thread of the page, so its answers never change."""

    snapshot: Callable[[], Snapshot]
    leads: Callable[[], bool]
    memories: Callable[[], Mapping[str, Memory]]
    """By server, as measured by this controller while it leads."""
    changes: Callable[[], Mapping[Change, int]]
    """By this controller since its start."""
    builds: Callable[[], BuildCounts | None]


class FleetCollector(Collector):
    """Asked by prometheus_client."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """One family after the other; all of them, those without a value, too."""
        snapshot = self._sources.snapshot()
        leading = gauge("enginehouse_controller_leading", "1 while this controller leads.")
        leading.add_metric((), float(self._sources.leads()))
        version = gauge("enginehouse_snapshot_version", "Registry version in use.")
        version.add_metric((), snapshot.version)
        yield from (leading, version)
        yield from scaling_families(snapshot)
        yield from change_families(snapshot, self._sources.changes())
        yield from pool_families(snapshot, self._sources.memories())
        yield from rollout_families(snapshot)
        yield from build_families(self._sources.builds())
