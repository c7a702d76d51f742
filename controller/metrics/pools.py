"""Metrics of pools of Tritons: which models are in whose memory, and what that takes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Final

from prometheus_client.core import GaugeMetricFamily

from controller.metrics.families import MIB, gauge
from controller.metrics.scaling import STATES
from controller.residency.pool import Memory, sum_mib
from model_registry.pools import TritonActuator
from model_registry.snapshot import Snapshot

LABELS: Final = ("pool", "server")


def pool_families(snapshot: Snapshot, memories: Mapping[str, Memory]) -> Iterator[GaugeMetricFamily]:
    """Of every server that a pool names. `memories`: measured, by server."""
    held = gauge("enginehouse_server_replicas", "Replicas on a server of a pool, by state.", *LABELS, "state")
    budget = gauge("enginehouse_server_memory_budget_bytes", "What a server's replicas may take.", *LABELS)
    taken = gauge(
        "enginehouse_server_memory_taken_bytes",
        "Sum of the sizes of a server's replicas: measured, else declared.",
        *LABELS,
    )
    used = gauge("enginehouse_server_memory_used_bytes", "GPU memory in use, as the server says.", *LABELS)
    kept = gauge(
        "enginehouse_server_memory_kept_bytes", "What models that have left a server did not free.", *LABELS
    )
    deployments = {one.name: one for one in chain(*snapshot.deployments.values())}
    replicas = [one for one in chain(*snapshot.replicas.values()) if one.place is not None]
    for pool in snapshot.pools.values():
        if not isinstance(pool.actuator, TritonActuator):
            continue
        for server in pool.actuator.servers:
            labels = (pool.name, server.http)
            own = [one for one in replicas if (one.pool, one.place) == labels]
            states = Counter(one.state for one in own)
            for state in STATES:
                held.add_metric((*labels, state), states[state])
            if server.memory_mib is not None:
                budget.add_metric(labels, server.memory_mib * MIB)
            taken_mib = sum_mib(own, deployments, snapshot.scaling)
            if isfinite(taken_mib):
                taken.add_metric(labels, taken_mib * MIB)
            memory = memories.get(server.http)
            if memory is not None and memory.used_mib is not None:
                used.add_metric(labels, memory.used_mib * MIB)
            if memory is not None and (memory.used_mib is not None or memory.kept_mib):
                kept.add_metric(labels, memory.kept_mib * MIB)
    yield from (held, budget, taken, used, kept)
