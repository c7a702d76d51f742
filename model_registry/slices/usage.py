"""Usage: what a worker has taken of its slice and not given back, or not yet got back by time."""

from __future__ import annotations

from collections import deque
from typing import Protocol

CELL_S = 0.25
"""Units taken within one such time return together, at most so much late and never early."""


class Usage(Protocol):
    """Units in use; times are those of one monotonic clock, never going back."""

    def total(self, now_s: float) -> int: ...

    def add(self, units: int, now_s: float) -> int:
        """Use `units`; the new total."""

    def remove(self, units: int, taken_s: float, now_s: float) -> None:
        """Give back units that were taken at `taken_s`."""

    def free_in_s(self, now_s: float, units: int = 1) -> float:
        """When at least `units` of them are free again by time alone; 0: no telling."""


class InFlight:
    """Units that are in use until they are given back: slots, concurrency."""

    def __init__(self) -> None:
        self._units = 0

    def total(self, now_s: float) -> int:
        del now_s
        return self._units

    def add(self, units: int, now_s: float) -> int:
        del now_s
        self._units += units
        return self._units

    def remove(self, units: int, taken_s: float, now_s: float) -> None:
        del taken_s, now_s
        self._units -= units

    def free_in_s(self, now_s: float, units: int = 1) -> float:
        del now_s, units
        return 0.0


class Window:
    """Units that stay in use for `window_s` after they were taken, so that no window holds too many."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._cells: deque[list[float]] = deque()
        """Each the end of a cell's time and its units, the oldest first."""
        self._units = 0

    def total(self, now_s: float) -> int:
        while self._cells and self._cells[0][0] + self._window_s <= now_s:
            self._units -= int(self._cells.popleft()[1])
        return self._units

    def add(self, units: int, now_s: float) -> int:
        end_s = _cell_end_s(now_s)
        if self._cells and self._cells[-1][0] >= end_s:
            self._cells[-1][1] += units
        else:
            self._cells.append([end_s, units])
        self._units += units
        return self.total(now_s)

    def remove(self, units: int, taken_s: float, now_s: float) -> None:
        """Of what has returned by time already, nothing is given back again."""
        self.total(now_s)
        end_s = _cell_end_s(taken_s)
        for cell in self._cells:
            if cell[0] == end_s:
                given = min(units, int(cell[1]))
                cell[1] -= given
                self._units -= given

    def free_in_s(self, now_s: float, units: int = 1) -> float:
        self.total(now_s)
        freed = 0
        for end_s, amount in self._cells:
            freed += int(amount)
            if freed >= units:
                return end_s + self._window_s - now_s
        return 0.0


def _cell_end_s(now_s: float) -> float:
    return (now_s // CELL_S + 1) * CELL_S
