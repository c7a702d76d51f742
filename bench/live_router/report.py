"""Report: what a part of the campaign found, how it shows, and what the machine did meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.live_router.fleet import Fleet
from bench.processes import machine_busy_s

Say = Callable[[str], None]
"""Progress, for people."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part's result."""

    met: bool
    """Its bar is."""
    wrong: Mapping[str, int]
    """Requests that were not answered as they have to be, by what was wrong."""
    figures: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        return self.met and not self.wrong


class CpuWatch:
    """Cores in use since it was made: by kind of process, and by the whole machine."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._began_s = time.monotonic()
        self._machine_s = machine_busy_s()
        self._ours_s = {**fleet.cpu_s(), "load": time.process_time()}

    def cores(self) -> dict[str, float]:
        """Means; `ours` together, and `machine` with whatever else ran."""
        took_s = time.monotonic() - self._began_s
        now_s = {**self._fleet.cpu_s(), "load": time.process_time()}
        cores = {name: (used - self._ours_s.get(name, 0.0)) / took_s for name, used in now_s.items()}
        cores["ours"] = sum(cores.values())
        cores["machine"] = (machine_busy_s() - self._machine_s) / took_s
        return {name: round(value, 2) for name, value in cores.items()}
