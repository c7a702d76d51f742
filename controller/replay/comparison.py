"""Comparison: one traffic through fleets that are sized in different ways, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import NamedTuple

from controller.replay import rivals
from controller.replay.fluid import Engines, Run, run
from controller.replay.own import Own
from controller.replay.traffic import Traffic

OWN, ORACLE, KPA, HPA = "enginehouse", "clairvoyant", "Knative KPA", "HPA"
SCHEDULE, STATIC = "fixed schedule", "static peak"
FIRST_S = 60
"""All begin with the replicas that so many seconds need at `rivals.TARGET`."""


class Comparison(NamedTuple):
    """By name of the way, the same traffic for all."""

    traffic: Traffic
    engines: Engines
    seed: int
    runs: Mapping[str, Run]

    def of_oracle(self, name: str) -> float:
        """GPU-hours beside the clairvoyant fleet's."""
        return self.runs[name].replica_s / self.runs[ORACLE].replica_s

    def of_static(self, name: str) -> float:
        """GPU-hours beside the smallest fixed fleet's."""
        return self.runs[name].replica_s / self.runs[STATIC].replica_s

    @property
    def ups_of_kpa(self) -> float:
        """Decisions for more, beside Knative's."""
        return self.runs[OWN].ups / max(1, self.runs[KPA].ups)


def compare(traffic: Traffic, engines: Engines, seed: int) -> Comparison:
    """Every way; `seed` is what the traffic was made with, to tell it by."""
    begin = max(engines.least, 1, ceil(float(traffic.work[:FIRST_S].mean()) / rivals.TARGET))
    runs = {
        OWN: run(traffic, engines, Own(engines), begin),
        ORACLE: rivals.clairvoyant(traffic, engines),
        KPA: run(traffic, engines, rivals.Kpa(), begin),
        HPA: run(traffic, engines, rivals.Hpa(), begin),
        SCHEDULE: rivals.scheduled(traffic, engines),
        STATIC: rivals.static(traffic, engines)[1],
    }
    return Comparison(traffic, engines, seed, MappingProxyType(runs))
