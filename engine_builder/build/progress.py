"""Progress: how far a build is, and when it may be done. Pure, but for the protocol of who is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Phase = Literal["waiting", "running", "cached", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a build is: at step `number` of `steps`."""

    step: str
    number: int
    """From 1."""
    steps: int
    phase: Phase
    """Of the step. `waiting`: another builder makes the same; `cached`: it was made before."""
    elapsed_s: float
    """Of the whole build, by this builder."""
    step_elapsed_s: float = 0.0
    eta_s: float | None = None
    """Seconds that are left, going by history; None where a step was never seen."""

    @property
    def share(self) -> float:
        """Of the whole that is done, from 0 to 1: by time where it is known, else by steps."""
        if self.eta_s is not None and self.elapsed_s + self.eta_s > 0:
            return self.elapsed_s / (self.elapsed_s + self.eta_s)
        done = self.number if self.phase in {"cached", "done"} else self.number - 1
        return done / self.steps


class Observer(Protocol):
    """Is told how a build goes, from the thread that runs it; it must not take long."""

    def progress(self, progress: Progress) -> None:
        """At each step's begin and end, and every quarter of a second or so while it runs."""

    def line(self, step: str, text: str) -> None:
        """A line that a step has written."""


class Silent:
    """Tells nobody."""

    def progress(self, progress: Progress) -> None:
        pass

    def line(self, step: str, text: str) -> None:
        pass


def remaining_s(
    names: Sequence[str],
    number: int,
    step_elapsed_s: float,
    expected_s: Mapping[str, float | None],
) -> float | None:
    """Seconds that steps from `number` (from 1) on still take; None when one of them was never seen.

    One that takes longer than expected is about to end, for all that is known.
    """
    left = [expected_s.get(name) for name in names[number - 1 :]]
    if any(one is None for one in left):
        return None
    seconds = [one for one in left if one is not None]
    if not seconds:
        return 0.0
    return max(0.0, seconds[0] - step_elapsed_s) + sum(seconds[1:])
