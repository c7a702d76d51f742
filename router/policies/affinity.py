"""Policies that keep like requests together until load forbids it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import ClassVar
from zlib import crc32

from router.policies.load import APART
from router.policies.options import Memoryless, Option
from router.policies.prefill import Product
from router.view import Ask, EndpointView

_WORD = 2**64 - 1


class ConsistentHash(Memoryless):
    """The head of the prompt says where, unless that endpoint has far more than its share.

    Rendezvous hashing, which moves as few prompts as a ring when endpoints come and go, with the bounded
    loads of Mirrokni et al. (arXiv 1608.01350). Without a whole block of prompt the session or the tenant
    says where.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "blocks": Option(2, 1, 1024, "blocks of the prompt that are hashed"),
        "bound": Option(1.25, 1, 100, "requests in flight beside the mean, at most"),
    }

    def __init__(self, blocks: float, bound: float) -> None:
        self._blocks = int(blocks)
        self._bound = bound

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        key = self._key(ask)
        each = self._bound * (1 + sum(v.requests for v in views)) / max(1, sum(v.slots for v in views))
        ranks = [_mixed(key ^ crc32(view.name.encode())) / _WORD for view in views]
        return [
            rank if view.requests + 1 <= max(1.0, each * view.slots) else rank + APART
            for rank, view in zip(ranks, views, strict=True)
        ]

    def _key(self, ask: Ask) -> int:
        if ask.blocks:
            return ask.blocks[min(self._blocks, len(ask.blocks)) - 1] & _WORD
        return _mixed(crc32((ask.session or ask.tenant).encode()))


class CacheThreshold(Memoryless):
    """The longest cached prefix if it is long enough and loads are alike, else the fewest requests.

    The `cache_aware` rule of SGLang's model gateway, with the defaults in its code.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "threshold": Option(0.5, 0, 1, "share of the prompt that must be cached"),
        "balance_abs": Option(32, 0, 1e6, "requests between the most and the least loaded, at least"),
        "balance_rel": Option(1.1, 1, 1000, "the most loaded beside the least loaded, at least"),
    }

    def __init__(self, threshold: float, balance_abs: float, balance_rel: float) -> None:
        self._threshold = threshold
        self._balance_abs = balance_abs
        self._balance_rel = balance_rel

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        requests = [view.requests for view in views]
        most, least = max(requests, default=0), min(requests, default=0)
        imbalanced = most - least > self._balance_abs and most > self._balance_rel * least
        longest = max((view.cached_tokens for view in views), default=0)
        if imbalanced or longest <= self._threshold * ask.prompt_tokens:
            return requests
        return [-view.cached_tokens for view in views]


class Sticky(Memoryless):
    """Where most of the prompt is cached, unless waiting there takes too long; then the fewest tokens.

    The rule of llm-d's router since August 2026. It ships with a penalty of 18 s, which is a long wait to
    accept; half a second is the better of the two on conversations.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "match": Option(0.8, 0, 1, "share of the prompt that must be cached"),
        "max_penalty_s": Option(0.5, 0, 3600, "seconds of waiting that a cached prompt is worth, at most"),
    }

    def __init__(self, match: float, max_penalty_s: float) -> None:
        self._match = match
        self._max_penalty_s = max_penalty_s

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        enough = max(1.0, self._match * ask.prompt_tokens)
        tokens = [view.prefill_tokens + view.uncached_tokens(ask) for view in views]
        warm = [view.cached_tokens >= enough for view in views]
        waits = [view.prefill_tokens / view.prefill_tokens_per_s for view in views]
        best_warm = min((w for w, is_warm in zip(waits, warm, strict=True) if is_warm), default=None)
        best_cold = min((w for w, is_warm in zip(waits, warm, strict=True) if not is_warm), default=None)
        if best_warm is None or (best_cold is not None and best_warm - best_cold > self._max_penalty_s):
            return tokens
        return [n if is_warm else n + APART for n, is_warm in zip(tokens, warm, strict=True)]


class SessionAffinity:
    """Where the client's session was last, while that endpoint is there and has a slot; else by `product`.

    Sessions of different tenants never meet, whatever they are called.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "ttl_s": Option(600, 1, 86400, "seconds that a session is remembered after its last request"),
        "max_sessions": Option(100_000, 1, 1e7, "sessions remembered by one gateway process"),
    }

    def __init__(self, ttl_s: float, max_sessions: float) -> None:
        self._ttl_s = ttl_s
        self._max_sessions = int(max_sessions)
        self._product = Product()
        self._last: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        costs = self._product.costs(ask, views, now_s)
        if ask.session is None:
            return costs
        name, at_s = self._last.get((ask.tenant, ask.session), ("", 0.0))
        if not name or now_s - at_s > self._ttl_s:
            return costs
        return [
            cost if view.name == name and view.requests < view.slots else cost + APART
            for cost, view in zip(costs, views, strict=True)
        ]

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None:
        if ask.session is None:
            return
        self._last[(ask.tenant, ask.session)] = view.name, now_s
        self._last.move_to_end((ask.tenant, ask.session))
        while len(self._last) > self._max_sessions:
            self._last.popitem(last=False)


def _mixed(word: int) -> int:
    """The finaliser of SplitMix64: every bit of `word` moves every bit of the answer."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
