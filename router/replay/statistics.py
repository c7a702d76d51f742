"""Statistics of replays: what one run amounts to, means over seeds with intervals, and SLO capacity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf, sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from router.replay.engine import EngineCard
from router.replay.run import Outcome
from router.replay.workload import Request

T_95 = (inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t of a two-sided 95 % interval, by degrees of freedom."""
T_95_MANY = 1.96


class Slo(NamedTuple):
    """What a request is owed."""

    ttft_s: float = 1.0
    """Or `prefill_times` its prefill alone on an idle engine, if that is more."""
    prefill_times: float = 2.0
    itl_s: float = 0.05
    share: float = 0.9
    """Of requests that have to get it, for a load to be within capacity."""

    def ttft_target_s(self, request: Request, card: EngineCard) -> float:
        """For one request."""
        return max(self.ttft_s, self.prefill_times * prefill_s(card, request.prompt_tokens))

    def met(self, outcome: Outcome, card: EngineCard) -> bool:
        """Whether the request got it."""
        return outcome.itl_s <= self.itl_s and outcome.ttft_s <= self.ttft_target_s(outcome.request, card)


@lru_cache(maxsize=100_000)
def prefill_s(card: EngineCard, tokens: int) -> float:
    """As `card.prefill_s`, remembered."""
    return card.prefill_s(tokens)


class Summary(NamedTuple):
    """One run."""

    requests: int
    refused: int
    met: float
    """Share of requests that got what they are owed; a refused one did not."""
    goodput: float
    """Requests per second that did."""
    hits: float
    """Share of prompt tokens that were in a cache."""
    mean_ttft_s: float
    """Of those that were served, as the rest."""
    p99_ttft_s: float
    p99_slowdown: float
    """Time to first token beside that of the prompt alone, which counts as a quarter of a second at least."""
    mean_itl_s: float


SHORTEST_PREFILL_S = 0.25


def summary(outcomes: Sequence[Outcome], card: EngineCard, slo: Slo = Slo()) -> Summary:  # noqa: B008
    """Of at least one outcome."""
    served = [one for one in outcomes if one.ttft_s < inf]
    met = sum(slo.met(one, card) for one in served)
    span_s = max(1e-9, outcomes[-1].request.arrival_s - outcomes[0].request.arrival_s)
    ttfts = sorted(one.ttft_s for one in served) or [inf]
    slow = sorted(
        one.ttft_s / max(SHORTEST_PREFILL_S, prefill_s(card, one.request.prompt_tokens)) for one in served
    ) or [inf]
    return Summary(
        len(outcomes),
        len(outcomes) - len(served),
        met / len(outcomes),
        met / span_s,
        sum(one.hit_tokens for one in served) / max(1, sum(one.request.prompt_tokens for one in served)),
        fmean(ttfts),
        quantile(ttfts, 0.99),
        quantile(slow, 0.99),
        fmean([one.itl_s for one in served] or [inf]),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Interval(NamedTuple):
    """A mean over seeds; `half` is half the width of its 95 % interval, and `inf` for one seed."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.half:.2g}" if self.half < inf else f"{self.mean:.3g}"


def interval(values: Sequence[float]) -> Interval:
    """Of at least one value."""
    if len(values) < 2:
        return Interval(values[0], inf)
    t = T_95[len(values) - 1] if len(values) <= len(T_95) else T_95_MANY
    return Interval(fmean(values), t * stdev(values) / sqrt(len(values)))


def capacity(met_at: Callable[[float], float], share: float, low: float, high: float, step: float) -> float:
    """The highest rate between `low` and `high` at which `share` is met, by bisection to `step`.

    `met_at`: share of requests that get what they are owed at a rate. `low` if not even that is within.
    """
    if met_at(high) >= share:
        return high
    below, above = met_at(low), met_at(high)
    if below < share:
        return low
    while high - low > step:
        middle = (low + high) / 2
        at = met_at(middle)
        if at >= share:
            low, below = middle, at
        else:
            high, above = middle, at
    return low + (high - low) * (below - share) / max(1e-9, below - above)
