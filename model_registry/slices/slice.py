"""Slice: one worker's part of a shared total, used without asking anybody.

Owned by the event loop of one process; `Exchange` alone changes what is held.
"""

from __future__ import annotations

from collections.abc import Mapping

from model_registry.slices.split import Share, Terms, allowance, targets
from model_registry.slices.usage import InFlight, Usage, Window


class Slice:
    """Units are slots, requests or tokens; with `window_s` they come back so long after they were taken."""

    def __init__(self, name: str, total: int, window_s: float, lease_s: float, *, standing: bool) -> None:
        self.name = name
        self.total = total
        self.window_s = window_s
        self.standing = standing
        """Some of it is held ahead of use even while nothing of it is used."""
        self.waiting = 0
        """Units that somebody waits for here."""
        self.terms = Terms()
        self.heard = False
        """There was an answer about it."""
        self.others: Mapping[str, Share] = {}
        self.weight = 1.0
        self.usage: Usage = Window(window_s) if window_s else InFlight()
        self._lease_s = lease_s
        self._peak = 0

    def allowed(self, now_s: float) -> int:
        """Units that may be in use now."""
        return allowance(self.terms, self._lease_s, self.window_s, now_s)

    def room(self, now_s: float) -> int:
        """Units that may be taken now; negative while more is in use than may be."""
        return self.allowed(now_s) - self.usage.total(now_s)

    def take(self, units: int, now_s: float) -> int:
        """Use `units`, whether there is room or not; the room that is left."""
        used = self.usage.add(units, now_s)
        if used > self._peak:
            self._peak = used
        return self.allowed(now_s) - used

    def give_back(self, units: int, taken_s: float, now_s: float) -> None:
        """End the use of `units` that were taken at `taken_s`."""
        self.usage.remove(units, taken_s, now_s)

    def share(self, now_s: float) -> Share:
        """What to tell the others. Slots count by the most that was in use since the last report."""
        used = self.usage.total(now_s)
        busy = used if self.window_s else max(used, self._peak)
        demand = min(self.total, busy + self.waiting)
        return Share(used, demand, self.weight, self.terms.held, self.usage.free_in_s(now_s))

    def reported(self, now_s: float) -> None:
        """A report was made: a new time begins to take the most of."""
        self._peak = self.usage.total(now_s)

    def target(self, own: str, now_s: float) -> int:
        """Units that this worker should hold."""
        share = self.share(now_s)
        if not self.standing and share.demand == 0:
            return 0
        return targets(self.total, {**self.others, own: share})[own]

    def used_by_all(self, now_s: float) -> int:
        """Units in use by all workers, those of the others as last reported."""
        return self.usage.total(now_s) + sum(share.used for share in self.others.values())

    def free_in_s(self, units: int, now_s: float) -> float:
        """When about `units` more may be free again by time alone; 0: no telling."""
        times = [self.usage.free_in_s(now_s, units), *(share.free_in_s for share in self.others.values())]
        return min((time for time in times if time > 0), default=0.0)
