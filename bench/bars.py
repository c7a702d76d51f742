"""The bars: what the gateway must reach against its yardstick, in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Medians = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Lane -> subject -> figure -> median over the repetitions."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise. `ratio`: gateway / yardstick, at least; `added`: gateway - yardstick, at most."""

    figure: str
    kind: Literal["ratio", "added"]
    yardstick: str
    limit: float


BARS = (
    Bar("requests_per_cpu_s", "ratio", "naive", 1.5),
    Bar("saturated_tokens_per_cpu_s", "ratio", "naive", 1.6),
    Bar("rate_p50_ms", "added", "direct", 0.8),
)
"""For each lane; `naive` is the one of that lane. The latency is that at 200 requests/s."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar and what was measured."""

    lane: str
    bar: Bar
    value: float

    @property
    def ok(self) -> bool:
        return self.value >= self.bar.limit if self.bar.kind == "ratio" else self.value <= self.bar.limit

    def text(self) -> str:
        bar = self.bar
        if bar.kind == "ratio":
            return f"{self.lane}: {bar.figure} {self.value:.2f} x {bar.yardstick} (bar {bar.limit:g} x)"
        return f"{self.lane}: {bar.figure} {self.value:+.2f} against {bar.yardstick} (bar {bar.limit:+g})"


def judge(medians: Medians) -> list[Judged]:
    """Every bar whose two figures were measured."""
    judged = []
    for lane, subjects in medians.items():
        for bar in BARS:
            measured = subjects.get("gateway", {}).get(bar.figure)
            yardstick = subjects.get(bar.yardstick, {}).get(bar.figure)
            if measured is None or yardstick is None:
                continue
            value = measured / yardstick if bar.kind == "ratio" else measured - yardstick
            judged.append(Judged(lane, bar, value))
    return judged
