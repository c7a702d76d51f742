"""NextUse: how likely it is that somebody asks for a model soon, learned from when they did before.

Owned by the leading controller, which tells it how many requests arrived since it last did.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from controller.residency.value import HORIZON_S, Outlook

WINDOW_S = 600.0
"""A request counts the less, the longer ago it came: by 1/e after so long."""


@dataclass(slots=True)
class _Use:
    at_s: float
    rate: float = 0.0


class NextUse:
    """Of all models of a pool."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def seen(self, now_s: float, model: str, arrivals: int) -> None:
        """`arrivals` more requests have come for it by now."""
        use = self._uses.setdefault(model, _Use(now_s))
        use.rate = use.rate * exp((use.at_s - now_s) / WINDOW_S) + arrivals / WINDOW_S
        use.at_s = now_s

    def outlook(self, now_s: float, model: str) -> Outlook:
        """What to expect of a model; nothing, if it has never been asked for."""
        use = self._uses.get(model)
        if use is None:
            return Outlook()
        rate = use.rate * exp((use.at_s - now_s) / WINDOW_S)
        return Outlook(1.0 - exp(-rate * HORIZON_S), rate)
