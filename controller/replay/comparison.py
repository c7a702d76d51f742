"""Comparison: one traffic through fleets that are sized in different ways, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from controller.replay import rivals
from controller.replay.fluid import Engines, Run, run
from controller.replay.own import Own
from controller.replay.traffic import Floats, Traffic

OWN, ORACLE, KPA, HPA = "enginehouse", "clairvoyant", "Knative KPA", "HPA"
SCHEDULE, STATIC = "fixed schedule", "static peak"
STEP_S = 60
"""Of timelines."""


class Way(NamedTuple):
    """What became of one way to size the fleet."""

    replica_s: float
    attainment: float
    ups: int
    starts: int
    up: Floats
    """Replicas by `STEP_S`, in the mean."""


class Comparison(NamedTuple):
    """By name of the way, the same traffic for all."""

    traffic: str
    engines: Engines
    seed: int
    load: Floats
    """In replicas, by `STEP_S`."""
    ways: Mapping[str, Way]

    def of_oracle(self, name: str) -> float:
        """GPU-hours beside the clairvoyant fleet's."""
        return self.ways[name].replica_s / self.ways[ORACLE].replica_s

    def of_static(self, name: str) -> float:
        """GPU-hours beside the smallest fixed fleet's."""
        return self.ways[name].replica_s / self.ways[STATIC].replica_s

    @property
    def ups_of_kpa(self) -> float:
        """Decisions for more, beside Knative's."""
        return self.ways[OWN].ups / max(1, self.ways[KPA].ups)


def compare(traffic: Traffic, engines: Engines, seed: int) -> Comparison:
    """Every way, begun as the smallest fixed fleet; `seed`: what the traffic was made with, to tell it by."""
    begin, fixed = rivals.static(traffic, engines)
    runs = {
        OWN: run(traffic, engines, Own(engines), begin),
        ORACLE: rivals.clairvoyant(traffic, engines),
        KPA: run(traffic, engines, rivals.Kpa(), begin),
        HPA: run(traffic, engines, rivals.Hpa(), begin),
        SCHEDULE: rivals.scheduled(traffic, engines),
        STATIC: fixed,
    }
    ways = {name: _way(one) for name, one in runs.items()}
    return Comparison(traffic.name, engines, seed, _means(traffic.work), ways)


def _way(one: Run) -> Way:
    return Way(one.replica_s, one.attainment, one.ups, one.starts, _means(one.up))


def _means(values: Floats) -> Floats:
    edges = np.arange(0, len(values), STEP_S)
    return np.asarray(np.add.reduceat(values, edges) / np.diff(np.append(edges, len(values))))
