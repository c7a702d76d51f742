"""Evidence: counts of what was seen of a rollout's two deployments. Adds up, over workers and over time.

Every worker reports all it has counted in one run of a rollout (its epoch), so that a report that comes
twice, late or not at all changes nothing but the age of what is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct, field

BIN = 0.01
"""Width of a bin of a logarithmic ratio: a hundredth."""
_MOST = 460
"""Ratios beyond e ** 4.6, a hundredfold, are counted as that."""


class Ratios(Struct):
    """How often which logarithmic ratio of candidate to stable was seen."""

    bins: dict[int, int] = field(default_factory=dict)

    def add(self, ratio: float) -> None:
        """Count one; what is not above 0 has no logarithm and is left out."""
        if ratio > 0 and math.isfinite(ratio):
            at = max(-_MOST, min(_MOST, math.floor(math.log(ratio) / BIN + 0.5)))
            self.bins[at] = self.bins.get(at, 0) + 1

    @property
    def count(self) -> int:
        return sum(self.bins.values())

    def above(self, excess: float) -> int:
        """Of ratios that are more than `excess` above 1 (0.1: a tenth), to the nearest hundredth."""
        edge = math.log1p(excess) / BIN
        return sum(count for at, count in self.bins.items() if at > edge)

    def below(self, excess: float) -> int:
        """Of those that are as far below 1, as a factor."""
        edge = -math.log1p(excess) / BIN
        return sum(count for at, count in self.bins.items() if at < edge)

    def quantile(self, share: float) -> float | None:
        """The ratio that `share` of all do not exceed; None without any."""
        left = share * self.count
        for at in sorted(self.bins):
            left -= self.bins[at]
            if left <= 0:
                return math.exp(at * BIN)
        return None

    def take(self, other: Ratios) -> None:
        """Add what another one has counted."""
        for at, count in other.bins.items():
            self.bins[at] = self.bins.get(at, 0) + count


class Trials(Struct):
    """How often something was looked for, and found."""

    of: int = 0
    found: int = 0

    def add(self, found: bool) -> None:
        """Count one."""
        self.of += 1
        self.found += found

    def take(self, other: Trials) -> None:
        """Add what another one has counted."""
        self.of += other.of
        self.found += other.found

    @property
    def rate(self) -> float | None:
        return self.found / self.of if self.of else None


class Copied(Struct):
    """Copies of requests that one deployment answered, beside what the client was answered."""

    errors: Trials = field(default_factory=Trials)
    answers: Trials = field(default_factory=Trials)
    """Greedy and seeded ones, and those of them with another text; of embeddings, with another direction."""
    finish: Trials = field(default_factory=Trials)
    """All, and those with another finish reason."""
    agreement: float = 0.0
    """Sum over `answers` of the share of the text that was the same, up to the first difference."""
    ttft: Ratios = field(default_factory=Ratios)
    pace: Ratios = field(default_factory=Ratios)
    """Of the time per token."""
    length: Ratios = field(default_factory=Ratios)

    def take(self, other: Copied) -> None:
        """Add what another one has counted."""
        for name in ("errors", "answers", "finish", "ttft", "pace", "length"):
            getattr(self, name).take(getattr(other, name))
        self.agreement += other.agreement


class Served(Struct):
    """Clients' requests in one step of the canary, on both sides."""

    candidate: Trials = field(default_factory=Trials)
    """Attempts, and those that failed."""
    stable: Trials = field(default_factory=Trials)
    ttft: Ratios = field(default_factory=Ratios)
    """Of a request of the candidate to one of the stable deployment at the same time with about the same
    prompt."""
    pace: Ratios = field(default_factory=Ratios)

    def take(self, other: Served) -> None:
        """Add what another one has counted."""
        for name in ("candidate", "stable", "ttft", "pace"):
            getattr(self, name).take(getattr(other, name))


class Evidence(Struct):
    """Of one run of a rollout."""

    epoch: int
    candidate: Copied = field(default_factory=Copied)
    stable: Copied = field(default_factory=Copied)
    """Of the stable deployment beside itself: what differs from run to run anyway."""
    steps: dict[int, Served] = field(default_factory=dict)
    """By step of the canary."""
    requests: int = 0
    """Of clients, since the run began, whoever served them."""
    exposed: int = 0
    """Of those, served by the candidate."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Requests that were not copied, by why."""

    def step(self, step: int) -> Served:
        """What was served in a step, to be counted on."""
        return self.steps.setdefault(step, Served())

    def take(self, other: Evidence) -> None:
        """Add what another one has counted."""
        self.candidate.take(other.candidate)
        self.stable.take(other.stable)
        for step, served in other.steps.items():
            self.step(step).take(served)
        self.requests += other.requests
        self.exposed += other.exposed
        for why, count in other.skipped.items():
            self.skipped[why] = self.skipped.get(why, 0) + count

    def canary(self) -> Served:
        """All steps together."""
        whole = Served()
        for served in self.steps.values():
            whole.take(served)
        return whole


def together(epoch: int, reports: Iterable[Evidence]) -> Evidence:
    """The sum of what belongs to this run."""
    whole = Evidence(epoch)
    for report in reports:
        if report.epoch == epoch:
            whole.take(report)
    return whole
