"""Plan: which requests a load test sends, and when. Pure: the same seed gives the same plan."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

from engine_builder.errors import BuilderError
from router.replay.workload import Workload

Arrivals = Literal["poisson", "constant"]
_LEAST_SHARE = 0.1
"""Of the mean: what a drawn length is at least."""


class Planned(NamedTuple):
    """One request."""

    at_s: float
    """When it is to be sent, from the beginning."""
    prompt_tokens: int
    output_tokens: int


class Lengths(NamedTuple):
    """How many tokens, drawn anew for each request: `mean`, spread `deviation` wide or within `bounds`."""

    mean: float
    deviation: float = 0.0
    bounds: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str, option: str) -> Lengths:
        """`512`, `100-900` (each equally often) or `512~128` (normal). Raises BuilderError."""
        try:
            if "-" in text:
                low, high = (int(part) for part in text.split("-"))
                if 1 <= low <= high:
                    return cls((low + high) / 2, bounds=(low, high))
            elif "~" in text:
                mean, deviation = (float(part) for part in text.split("~"))
                if mean >= 1 and deviation >= 0:
                    return cls(mean, deviation)
            elif int(text) >= 1:
                return cls(int(text))
        except ValueError:
            pass
        raise BuilderError(
            f"{option} {text!r} is not a number of tokens",
            f"write {option} 512, {option} 100-900 (evenly between) or {option} 512~128 (mean and deviation)",
        )

    def __str__(self) -> str:
        if self.bounds is not None:
            return f"{self.bounds[0]}-{self.bounds[1]}"
        return f"{self.mean:g}~{self.deviation:g}" if self.deviation else f"{self.mean:g}"

    def draw(self, dice: Random) -> int:
        """One length."""
        if self.bounds is not None:
            return dice.randint(*self.bounds)
        if not self.deviation:
            return round(self.mean)
        return max(1, round(max(_LEAST_SHARE * self.mean, dice.gauss(self.mean, self.deviation))))


def synthetic(
    rate: float, seconds: float, arrivals: Arrivals, prompts: Lengths, outputs: Lengths, seed: int
) -> list[Planned]:
    """Requests of drawn lengths at `rate` per second."""
    dice = Random(seed)
    found: list[Planned] = []
    at_s = 0.0
    while True:
        at_s += dice.expovariate(rate) if arrivals == "poisson" else 1 / rate
        if at_s >= seconds:
            return found
        found.append(Planned(at_s, prompts.draw(dice), outputs.draw(dice)))


def of_trace(
    trace: Workload, rate: float | None, seconds: float, most_tokens: int | None, seed: int
) -> list[Planned]:
    """The beginning of a trace, its clock as fast as `rate` needs. Those with more tokens are left out."""
    # Its mean rate is not that of its beginning: another clock, and the same bursts.
    spread = trace.at(rate or trace.rate, seed).first(seconds)
    return [
        Planned(one.arrival_s, one.prompt_tokens, one.output_tokens)
        for one in spread.requests
        if most_tokens is None or one.prompt_tokens + one.output_tokens <= most_tokens
    ]


def rounds(plan: Sequence[Planned], count: int, seconds: float) -> list[list[Planned]]:
    """The plan in parts of equal time, each beginning at 0."""
    part_s = seconds / count
    parts: list[list[Planned]] = [[] for _ in range(count)]
    for one in plan:
        number = min(count - 1, int(one.at_s / part_s))
        parts[number].append(one._replace(at_s=one.at_s - number * part_s))
    return parts
