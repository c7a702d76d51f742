"""NextUse: how likely it is that somebody asks for a model soon, learned from when they did before.

Owned by the leading controller, which tells it how many requests arrived since it last did. For each model
there is a histogram of the gaps between its requests, and for all together another, which stands in for a
model that has few of its own: what has been idle for a while stays idle for about as long again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, field
from math import exp

from controller.residency.value import HORIZON_S, Outlook

EDGES_S = tuple(8.0 * 2 ** (half / 2) for half in range(32))
"""Of the histograms' bins: 8 s to 4 days, two to an octave. Shorter gaps say nothing of absence."""
FADES_S = 86_400.0
"""A gap counts the less, the longer ago it ended: by 1/e after so long."""
PRIOR = 8.0
"""Gaps of its own that a model needs to count as much as all others."""
BURST_S = 20.0
"""Requests that come so soon after one another would all wait for the same load."""
BURST_SHARE = 0.2
"""Share of the newest burst in the average."""


class _Gaps:
    """A histogram that fades: new gaps weigh more, rather than old ones less."""

    __slots__ = ("_base_s", "_counts", "_tails", "_weight")

    def __init__(self) -> None:
        self._counts = [0.0] * len(EDGES_S)
        self._tails: list[float] = []
        """By bin: gaps in it and all longer ones; empty until asked for."""
        self._base_s: float | None = None
        self._weight = 1.0
        """Of the newest gap."""

    def add(self, now_s: float, gap_s: float) -> None:
        """A gap that ends now; of at least `EDGES_S[0]`."""
        if self._base_s is None or now_s - self._base_s > 20 * FADES_S:
            self._counts = [count / self._weight for count in self._counts]
            self._base_s = now_s
        self._weight = exp((now_s - self._base_s) / FADES_S)
        self._counts[bisect_right(EDGES_S, gap_s) - 1] += self._weight
        self._tails.clear()

    def longer(self, age_s: float) -> float:
        """Gaps longer than `age_s`; those of its own bin in proportion."""
        if not self._tails:
            tail = 0.0
            for count in reversed(self._counts):
                tail += count / self._weight
                self._tails.append(tail)
            self._tails.reverse()
        at = bisect_right(EDGES_S, age_s) - 1
        if at < 0:
            return self._tails[0]
        if at == len(EDGES_S) - 1:
            return 0.0
        part = (EDGES_S[at + 1] - age_s) / (EDGES_S[at + 1] - EDGES_S[at])
        return self._tails[at + 1] + part * (self._tails[at] - self._tails[at + 1])


@dataclass(slots=True)
class _Use:
    last_s: float
    burst_since_s: float
    burst: float = 0.0
    """Requests since then."""
    usual_burst: float = 1.0
    gaps: _Gaps = field(default_factory=_Gaps)


class NextUse:
    """Of all models of a pool."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._all = _Gaps()

    def seen(self, now_s: float, model: str, arrivals: int) -> None:
        """`arrivals` more requests have come for it by now."""
        use = self._uses.get(model)
        if use is None:
            self._uses[model] = _Use(now_s, now_s, arrivals)
            return
        gap_s = now_s - use.last_s
        use.last_s = now_s
        if gap_s >= EDGES_S[0]:
            use.gaps.add(now_s, gap_s)
            self._all.add(now_s, gap_s)
        if now_s - use.burst_since_s < BURST_S:
            use.burst += arrivals
        else:
            use.usual_burst += BURST_SHARE * (use.burst - use.usual_burst)
            use.burst_since_s, use.burst = now_s, arrivals

    def keep(self, models: Collection[str]) -> None:
        """Forget what is known of any other one alone."""
        for model in self._uses.keys() - set(models):
            del self._uses[model]

    def outlook(self, now_s: float, model: str) -> Outlook:
        """What to expect of a model; nothing, if it has never been asked for."""
        use = self._uses.get(model)
        if use is None:
            return Outlook()
        age_s = now_s - use.last_s
        others, longer = self._all.longer(age_s), use.gaps.longer(age_s)
        ending = longer - use.gaps.longer(age_s + HORIZON_S)
        # Add one to each side: with nothing to go by, what was idle for long stays idle.
        soon = others - self._all.longer(age_s + HORIZON_S) + HORIZON_S / (HORIZON_S + age_s)
        prior = soon / (others + 1)
        rate = max(0.0, use.usual_burst - 1) / BURST_S
        return Outlook((ending + PRIOR * prior) / (longer + PRIOR), rate)
