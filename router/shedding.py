"""Shedding: while prefill takes too much of the engines' time, the prompts that cost most are refused. Pure.

While an engine computes prompts, the answers that it is writing stand still: above some share of its time the
time between tokens misses its target, for everybody. A prompt costs its seconds of prefill, so that refusing
few large ones relieves more than refusing many small ones. What is let in costs at most a price times what
its priority is worth; the price follows the share of time by integral control. Critical requests of common
size are let in at any price: where the price is low, there is enough else to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from model_registry.tenants import Priority

WORTH: Mapping[Priority, float] = MappingProxyType({"critical": 8.0, "standard": 2.0, "sheddable": 1.0})
"""How many times the price a request of this priority may cost."""
CRITICAL_S = 10.0
"""Seconds of prefill that a critical request may always cost."""
MEMORY_S = 7.0
"""Over which the share is measured: as long as an answer takes, more or less."""
_GAIN = 2.0
_HIGHEST_S = 60.0
_LOWEST_S = 0.02


class Shedding:
    """One deployment group's; `share`: of the engines' time that prefill may take."""

    __slots__ = ("_at_s", "_work_s", "price_s", "share")

    def __init__(self, share: float) -> None:
        self.price_s = _HIGHEST_S
        """Seconds of prefill that a sheddable request may cost now."""
        self.share = share
        self._work_s = 0.0
        self._at_s: float | None = None

    def sheds(self, priority: Priority, prefill_s: float, engines: int, now_s: float) -> bool:
        """Whether a request is refused that would cost one of the `engines` so much."""
        self._pass(engines, now_s)
        allowed_s = self.price_s * WORTH[priority]
        return prefill_s > (max(allowed_s, CRITICAL_S) if priority == "critical" else allowed_s)

    def dispatched(self, prefill_s: float, engines: int, now_s: float) -> None:
        """A request was sent to an engine, which will compute for `prefill_s`."""
        self._pass(engines, now_s)
        self._work_s += prefill_s

    def _pass(self, engines: int, now_s: float) -> None:
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        taken = self._work_s / (MEMORY_S * max(1, engines))
        step = _GAIN * passed_s / MEMORY_S * (self.share - taken) / self.share
        self.price_s = min(max(self.price_s * math.exp(step), _LOWEST_S), _HIGHEST_S)
        self._work_s *= math.exp(-passed_s / MEMORY_S)
