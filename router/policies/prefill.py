"""Policies that weigh the prompt's uncached tokens against the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from router.attention import weighed
from router.policies.options import Memoryless, Option
from router.view import Ask, EndpointView

ALIKE = 2.0
"""Forecasts of engines of one kind are apart by chance. Below this factor between the slowest and the fastest
all are taken to be as fast as their mean: going by the difference costs more than it tells."""

SHORT_S = 0.25
"""A first token that comes within it is early enough for any prompt."""


def paces(views: Sequence[EndpointView]) -> Sequence[float]:
    """Prompt tokens per second of each endpoint, without what is chance."""
    each = [view.prefill_tokens_per_s for view in views]
    if len(each) < 2 or max(each) > ALIKE * min(each):
        return each
    return [sum(each) / len(each)] * len(each)


class Product(Memoryless):
    """Uncached tokens in flight, this prompt's included, times the batch that it would make.

    LMETRIC (Zhang et al., 2026, arXiv 2603.15202): a factor that all endpoints share changes nothing, so that
    there is nothing to tune. Tokens are taken in seconds of their engine and the batch in slots, for unlike
    engines.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        prompt, half = ask.prompt_tokens, ask.attention / 2
        first = 1.0 + ask.attention * prompt
        return [  # `uncached_tokens`, written out: the default policy is on every request's path
            (
                view.prefill_tokens
                + view.surcharge_tokens
                + (uncached if (uncached := prompt - view.cached_tokens) > 1 else 1)
                * (first - half * uncached)
            )
            * (view.requests + 1)
            / (pace * view.slots)
            for view, pace in zip(views, paces(views), strict=True)
        ]


class PredictedTtft(Memoryless):
    """The time to this request's first token, and what its prefill means for others.

    For those under way there it is a delay. For those to come it takes room in a cache that may have the same
    elsewhere: each uncached token counts `reuse` more, whatever attention makes of it. A first token that is
    later than it would be with nothing cached and nobody there counts as later still, so that what a cached
    prompt may wait for its engine goes by its length.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "externality": Option(0.27, 0, 100, "what a second of delay for another request counts"),
        "request_tokens": Option(150, 0, 1e6, "prompt tokens that each request in flight counts for"),
        "reuse": Option(3.7, 0, 100, "what an uncached token counts more, for those who come later"),
        "lateness_s": Option(0.5, 0, 3600, "seconds that a first token later than its prompt alone counts"),
    }

    def __init__(self, externality: float, request_tokens: float, reuse: float, lateness_s: float) -> None:
        self._externality = externality
        self._request_tokens = request_tokens
        self._reuse = reuse
        self._lateness_s = lateness_s

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        alpha, each, reuse, prompt = self._externality, self._request_tokens, self._reuse, ask.prompt_tokens
        alone = weighed(prompt, 0, ask.attention)
        costs = []
        for view, pace in zip(views, paces(views), strict=True):
            uncached = view.uncached_tokens(ask)
            ttft_s = (view.prefill_tokens - view.hoped_tokens + uncached) / pace
            others = view.requests * (alpha * uncached + each) + reuse * max(1, prompt - view.cached_tokens)
            cost = ttft_s + others / pace
            late = ttft_s > max(SHORT_S, alone / pace)
            costs.append(cost + self._lateness_s if late else cost)
        return costs


class Linear(Memoryless):
    """Prefill plus decode load, in tokens, less what is cached: the cost of NVIDIA Dynamo's KV router.

    With `overlap_decay`, cached tokens count for less the more prefill an endpoint has than the least loaded.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "prefill_scale": Option(1.0, 0, 1000, "what a token to be computed counts beside a resident one"),
        "overlap_decay": Option(0.0, 0, 1000, "how fast cached tokens lose their worth with load"),
        "request_weight": Option(0.0, 0, 1e6, "tokens that each request in flight counts for"),
    }

    def __init__(self, prefill_scale: float, overlap_decay: float, request_weight: float) -> None:
        self._prefill_scale = prefill_scale
        self._overlap_decay = overlap_decay
        self._request_weight = request_weight

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        least = min((view.prefill_tokens for view in views), default=0)
        prompt = max(1, ask.prompt_tokens)
        costs = []
        for view in views:
            excess = (view.prefill_tokens - least) / prompt
            credit = view.cached_tokens / (1 + self._overlap_decay * excess)
            prefill = max(0.0, view.prefill_tokens + prompt + view.surcharge_tokens - credit)
            decode = view.decode_tokens + prompt
            costs.append(self._prefill_scale * prefill + decode + self._request_weight * view.requests)
        return costs
