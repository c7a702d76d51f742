"""Metrics of scaled deployments: what is wanted, what there is, and what that goes by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from controller.metrics.families import MIB, counter, gauge
from controller.replicas.changes import Change
from model_registry.replicas import ReplicaState
from model_registry.snapshot import Snapshot

LABELS: Final = ("deployment", "model", "pool")
STATES: Final = ("ready", "starting", "draining")
SIGNALS: Final[Mapping[str, tuple[str, str]]] = {
    "load": ("enginehouse_load_replicas", "Work that comes in, as replicas that it keeps busy."),
    "expected_load": ("enginehouse_expected_load_replicas", "The same, as expected a cold start ahead."),
    "waiting": (
        "enginehouse_waiting_replica_seconds",
        "Work that waits in gateways, as time of one replica.",
    ),
    "fill": ("enginehouse_card_fill_ratio", "What replicas really do of what their card says."),
}
"""Signals of a decision that are shown, and as what."""


def scaling_families(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    """Of every deployment that has `scaling` and was looked at."""
    wanted = gauge("enginehouse_wanted_replicas", "Replicas that there should be of a deployment.", *LABELS)
    replicas = gauge("enginehouse_replicas", "Replicas of a deployment, by state.", *LABELS, "state")
    cold_start = gauge(
        "enginehouse_cold_start_seconds", "Learned time from the decision to a ready replica.", *LABELS
    )
    failed = gauge("enginehouse_failed_starts", "Starts in a row that came to nothing.", *LABELS)
    memory = gauge("enginehouse_replica_memory_bytes", "Measured size of one replica on its server.", *LABELS)
    signals = {name: gauge(*said, *LABELS) for name, said in SIGNALS.items()}
    age = gauge(
        "enginehouse_signal_age_seconds",
        "Age of the oldest gateway's report when the number was last decided.",
        *LABELS,
    )
    for status in snapshot.scaling.values():
        labels = (status.name, status.model, status.pool)
        wanted.add_metric(labels, status.wanted)
        for state in STATES:
            replicas.add_metric((*labels, state), getattr(status, state))
        if status.cold_start_s is not None:
            cold_start.add_metric(labels, status.cold_start_s)
        failed.add_metric(labels, status.failures)
        if status.memory_mib is not None:
            memory.add_metric(labels, status.memory_mib * MIB)
        for signal in status.signals:
            if signal.name in signals:
                signals[signal.name].add_metric(labels, signal.value)
        ages_s = [one.age_s for one in status.signals if one.age_s is not None]
        if ages_s:
            age.add_metric(labels, max(ages_s))
    yield from (wanted, replicas, cold_start, failed, memory, *signals.values(), age)


def change_families(snapshot: Snapshot, changes: Mapping[Change, int]) -> Iterator[CounterMetricFamily]:
    """Of deployments that there are: those that have gone would stay on the page for ever.

    States that no replica came to are 0: a count that begins with 1 shows Prometheus no increase.
    """
    counted = counter(
        "enginehouse_replica_changes_total",
        "Replicas that came to a state, by this controller's decision or finding.",
        *LABELS,
        "state",
    )
    for status in snapshot.scaling.values():
        for state in get_args(ReplicaState):
            change = Change(status.name, status.model, status.pool, state)
            counted.add_metric(change, changes.get(change, 0))
    yield counted
