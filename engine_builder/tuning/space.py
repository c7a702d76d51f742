"""Space: what a search may set, under which loads it measures, and what a measurement came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Setting(NamedTuple):
    """A value for every knob, as texts, in the order of the knobs."""

    values: tuple[tuple[str, str], ...]

    def of(self, knob: str) -> str:
        """One knob's. Raises KeyError for one that is not of the search."""
        return dict(self.values)[knob]

    def replaced(self, knob: str, value: str) -> Setting:
        """The same but for one knob."""
        return Setting(tuple((name, value if name == knob else old) for name, old in self.values))

    def differs_from(self, other: Setting) -> Mapping[str, str]:
        """The knobs that are set otherwise there, with the values that they have here."""
        there = dict(other.values)
        return {name: value for name, value in self.values if there.get(name) != value}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values) or "as it is"


class Knob(NamedTuple):
    """One thing that can be set, and what to try."""

    name: str
    values: tuple[str, ...]


class Space(NamedTuple):
    """What may be tried."""

    knobs: tuple[Knob, ...]
    start: Setting
    """How the deployment is set."""
    loads: tuple[int, ...]
    """Clients of one replica at once, from few to many."""


class Trial(NamedTuple):
    """One setting under one load."""

    setting: Setting
    clients: int
    weight: int = 1
    """How many times as long as others it is measured."""


class Measured(NamedTuple):
    """What a trial came to, of one replica. One with an `error` has no figures: the setting does not run."""

    trial: Trial
    took_s: float
    """With the change of settings before it."""
    requests: int = 0
    requests_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    met: float = 0.0
    """Share of the requests that met both targets."""
    ttft_s: float = 0.0
    """The median's time to first token."""
    ttft_p99_s: float = 0.0
    itl_s: float = 0.0
    """The median's time between tokens."""
    error: str | None = None

    @property
    def goodput(self) -> float:
        """Requests per second that met both targets."""
        return self.requests_per_s * self.met


class Budget(NamedTuple):
    """When a search ends that has not found its end."""

    trials: int
    seconds: float

    def spent(self, history: list[Measured]) -> str | None:
        """What of it is used up; None while there is some left."""
        if len(history) >= self.trials:
            return f"{self.trials} trials"
        if sum(one.took_s for one in history) >= self.seconds:
            return f"{self.seconds:g} s"
        return None
