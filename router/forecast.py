"""Forecast: how long an engine takes to a first token, and from one token to the next.

Two straight lines per engine: time to first token over uncached prompt tokens ahead, and the time of a step
over its batch. They begin at a seed (a goodput card, or what a common engine does) and follow what is
observed, which fades as more comes. Routing, admission and scaling go by the same lines.
"""

from __future__ import annotations

from typing import NamedTuple

from model_registry.cards import GoodputCard


class Seed(NamedTuple):
    """What is assumed of an engine before it has been seen at work."""

    prefill_tokens_per_s: float = 20_000.0
    """Of a 32B model on two H100, rounded: 8,192 tokens in 0.40 s."""
    overhead_s: float = 0.03
    """From dispatch to first token, for a prompt without tokens."""
    step_s: float = 0.012
    """Of a batch of one."""
    step_per_request_s: float = 0.0002
    """What each further request adds to a step."""


COMMON = Seed()
"""Of an engine that nothing is said of."""


def seed_of(card: GoodputCard | None) -> Seed:
    """What a card says."""
    if card is None:
        return COMMON
    return Seed(card.prefill_tokens_per_s, card.overhead_s, card.step_s, card.step_per_request_s)


class Learned(NamedTuple):
    """What a forecast says by now, in the figures of a card."""

    prefill_tokens_per_s: float
    overhead_s: float
    step_s: float
    step_per_request_s: float
    ttft_seen: int
    """First tokens observed since the seed."""
    ttft_age_s: float | None
    """Since the last of them; None: only the seed is known."""
    itl_seen: int
    """Answers whose steps were observed."""
    itl_age_s: float | None


class Line:
    """A straight line through observations, the latest of which count most.

    Weighted least squares with forgetting. The seed counts as `weight` observations at either end of its
    span, and never fades: what has been seen at one load alone leaves the slope about as it was.
    """

    __slots__ = ("_keep", "_prior", "_sums", "intercept", "slope")

    def __init__(self, intercept: float, slope: float, span: float, memory: float, weight: float) -> None:
        """`span`: the seed is for x from 0 to it. `memory`: how many observations are remembered."""
        self.intercept = intercept
        self.slope = slope
        self._keep = 1.0 - 1.0 / memory
        ends = ((0.0, intercept), (span, intercept + slope * span))
        n, sx, sy, sxx, sxy = (
            weight * sum(term) for term in zip(*(_terms(*end) for end in ends), strict=True)
        )
        self._prior = n, sx, sy, sxx, sxy
        self._sums = 0.0, 0.0, 0.0, 0.0, 0.0

    def at(self, x: float) -> float:
        """The line's value there."""
        return self.intercept + self.slope * x

    def observe(self, x: float, y: float) -> None:
        """One more point. One that is beyond all reason counts as far off only."""
        expected = self.at(x)
        y = min(max(y, expected / 8), expected * 8)
        keep = self._keep
        n, sx, sy, sxx, sxy = self._sums  # written out: this is on the path of every first token
        n, sx, sy = keep * n + 1.0, keep * sx + x, keep * sy + y
        sxx, sxy = keep * sxx + x * x, keep * sxy + x * y
        self._sums = n, sx, sy, sxx, sxy
        prior_n, prior_sx, prior_sy, prior_sxx, prior_sxy = self._prior
        n, sx, sy, sxx, sxy = n + prior_n, sx + prior_sx, sy + prior_sy, sxx + prior_sxx, sxy + prior_sxy
        spread = n * sxx - sx * sx
        slope = (n * sxy - sx * sy) / spread if spread > 0 else self.slope
        self.slope = max(slope, 0.0)
        intercept = (sy - self.slope * sx) / n
        if intercept < 0:
            self.slope, intercept = sxy / sxx, 0.0
        self.intercept = intercept


def _terms(x: float, y: float) -> tuple[float, float, float, float, float]:
    return 1.0, x, y, x * x, x * y


class Forecast:
    """One engine's. Times in seconds; `now_s` on the clock of the decisions."""

    __slots__ = (
        "_itl_seen",
        "_itl_seen_s",
        "_step",
        "_ttft",
        "_ttft_seen",
        "_ttft_seen_s",
        "prefill_tokens_per_s",
        "step_base_s",
        "step_each_s",
    )

    def __init__(self, seed: Seed = COMMON) -> None:
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        """Begin again from what a card says; what was observed is forgotten."""
        self._ttft = Line(seed.overhead_s, 1 / seed.prefill_tokens_per_s, 16_384, memory=64, weight=1)
        self._step = Line(
            seed.step_s - seed.step_per_request_s, seed.step_per_request_s, 64, memory=64, weight=1
        )
        self.prefill_tokens_per_s = seed.prefill_tokens_per_s
        """At least one, whatever was observed."""
        self.step_base_s = max(1e-6, self._step.intercept)
        self.step_each_s = self._step.slope
        """A step of a batch takes the base and this for each request; both never negative."""
        self._ttft_seen = self._itl_seen = 0
        self._ttft_seen_s: float | None = None
        self._itl_seen_s: float | None = None

    def step_s(self, batch: int) -> float:
        """One decode step, in which each of `batch` requests gets a token."""
        return self.step_base_s + self.step_each_s * max(1, batch)

    def ttft_s(self, uncached_tokens: int) -> float:
        """With so many uncached prompt tokens ahead, the request's own among them."""
        return max(0.0, self._ttft.at(uncached_tokens))

    def saw_ttft(self, uncached_tokens: int, ttft_s: float, now_s: float) -> None:
        """A first token came `ttft_s` after a dispatch with `uncached_tokens` ahead, its own among them."""
        self._ttft.observe(uncached_tokens, ttft_s)
        self.prefill_tokens_per_s = 1 / min(1.0, max(self._ttft.slope, 1e-8))
        self._ttft_seen += 1
        self._ttft_seen_s = now_s

    def saw_itl(self, batch: int, itl_s: float, now_s: float) -> None:
        """An answer's tokens came `itl_s` apart, in the mean, while about `batch` requests ran there."""
        self._step.observe(max(1, batch), itl_s)
        self.step_base_s, self.step_each_s = max(1e-6, self._step.intercept), self._step.slope
        self._itl_seen += 1
        self._itl_seen_s = now_s

    def ttft_age_s(self, now_s: float) -> float | None:
        """Since the last time to first token was observed; None: only the seed is known."""
        return None if self._ttft_seen_s is None else now_s - self._ttft_seen_s

    def itl_age_s(self, now_s: float) -> float | None:
        """Since the last time between tokens was observed; None: only the seed is known."""
        return None if self._itl_seen_s is None else now_s - self._itl_seen_s

    def learned(self, now_s: float) -> Learned:
        """What it says by now, for people and for scaling."""
        return Learned(
            self.prefill_tokens_per_s,
            self._ttft.intercept,
            self.step_s(1),
            self.step_each_s,
            self._ttft_seen,
            self.ttft_age_s(now_s),
            self._itl_seen,
            self.itl_age_s(now_s),
        )


class Forecasts:
    """By endpoint name; owned by one event loop."""

    def __init__(self) -> None:
        self._known: dict[str, Forecast] = {}
        self._seeds: dict[str, Seed] = {}

    def of(self, endpoint: str) -> Forecast:
        """The endpoint's, which begins with what its card says."""
        known = self._known.get(endpoint)
        if known is None:
            known = self._known[endpoint] = Forecast(self._seeds.get(endpoint, COMMON))
        return known

    def adopt(self, endpoint: str, card: GoodputCard | None) -> None:
        """Go by the endpoint's card; one that says something else than before begins the forecast anew."""
        seed = seed_of(card)
        if seed != self._seeds.get(endpoint, COMMON):
            self.of(endpoint).seed(seed)
        self._seeds[endpoint] = seed

    def retain(self, endpoints: set[str]) -> None:
        """Forget all others."""
        for name in self._known.keys() - endpoints:
            del self._known[name]
        for name in self._seeds.keys() - endpoints:
            del self._seeds[name]
