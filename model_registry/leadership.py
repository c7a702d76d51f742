"""Leadership: a claim to be the one controller, and for how long this machine may rely on it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Leadership:
    """A write that carries an outdated one is refused; an act outside Redis asks `holds` before it begins."""

    holder: str
    token: int
    """Grows with every change of leaders."""
    until_s: float = field(default=math.inf, compare=False)
    """When it lapses at the earliest, by `boot_s`: counted from before it was asked for."""

    def holds(self, margin_s: float) -> bool:
        """Whether nobody else can lead before `margin_s` are over."""
        return boot_s() + margin_s < self.until_s


def boot_s() -> float:
    """Seconds since the machine started, those it was suspended or this process was stopped included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
