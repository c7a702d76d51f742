"""Metrics of rollouts: how far each has come. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from controller.metrics.families import gauge
from model_registry.snapshot import Snapshot


def rollout_families(snapshot: Snapshot) -> Iterator[GaugeMetricFamily]:
    """Of every rollout that there is, those that have ended, too."""
    phases = gauge("enginehouse_rollout_phase", "1 for the phase of a rollout.", "rollout", "model", "phase")
    for rollout in snapshot.rollouts.values():
        status = snapshot.rollout_statuses.get(rollout.name)
        current = status is not None and status.run == rollout.run
        phase = status.phase if status is not None and current else "pending"
        phases.add_metric((rollout.name, rollout.model, phase), 1.0)
    yield phases
