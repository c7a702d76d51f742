"""SliceSeries: what this worker holds, uses and would like of totals that all workers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import Gauge

from telemetry.instruments import Instruments


class Units(NamedTuple):
    """Of one slice."""

    leased: int = 0
    """May be in use now."""
    used: int = 0
    wanted: int = 0
    """In use, or waited for."""


class SliceSeries:
    """Gauges by label; of what is gone they fall to 0, since with several workers none can be taken back."""

    def __init__(self, instruments: Instruments) -> None:
        self._slots = instruments.slots_leased, instruments.slots_used, instruments.slots_wanted
        self._limits = instruments.limit_leased, instruments.limit_used, instruments.limit_wanted
        self._lost = instruments.renewals_lost
        self._confirmed = instruments.slices_confirmed
        self._shown: dict[tuple[Gauge, ...], set[tuple[str, ...]]] = {self._slots: set(), self._limits: set()}
        self._lost_before = 0

    def set(
        self,
        slots: Iterable[tuple[tuple[str, str], Units]],
        limits: Iterable[tuple[tuple[str, str], Units]],
    ) -> None:
        """Slots by endpoint and worker, limits by tenant and limit; equal labels add up."""
        self._set(self._slots, _summed(slots))
        self._set(self._limits, _summed(limits))

    def renewals(self, lost: int, confirmed: bool) -> None:
        """How many reports were not answered since the start, and whether what is held is confirmed."""
        self._lost.inc(lost - self._lost_before)
        self._lost_before = lost
        self._confirmed.set(confirmed)

    def _set(self, gauges: tuple[Gauge, ...], found: Mapping[tuple[str, str], Units]) -> None:
        for labels in self._shown[gauges] | found.keys():
            for gauge, value in zip(gauges, found.get((labels[0], labels[1]), Units()), strict=True):
                gauge.labels(*labels).set(value)
        self._shown[gauges].update(found)


def _summed(rows: Iterable[tuple[tuple[str, str], Units]]) -> dict[tuple[str, str], Units]:
    found: dict[tuple[str, str], Units] = {}
    for labels, units in rows:
        before = found.get(labels, Units())
        found[labels] = Units(*(one + more for one, more in zip(before, units, strict=True)))
    return found
