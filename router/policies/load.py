"""Policies that go by load alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar

from router.policies.options import Memoryless, Option
from router.view import Ask, EndpointView

APART = 1e12
"""Added to the costs of endpoints that are to be taken only when no other may be."""


class LeastRequests(Memoryless):
    """The fewest requests in flight for each slot."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        return [view.requests / view.slots for view in views]


class LeastTokens(Memoryless):
    """The fewest tokens for each slot: uncached ones of prompts, this one included, and some of the rest."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "decode_weight": Option(0.02, 0, 100, "what a token in a KV cache counts beside one to be computed")
    }

    def __init__(self, decode_weight: float) -> None:
        self._decode_weight = decode_weight

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        weight = self._decode_weight
        return [
            (view.prefill_tokens + view.uncached_tokens(ask) + weight * view.decode_tokens) / view.slots
            for view in views
        ]


class PowerOfTwo(Memoryless):
    """The less loaded of two endpoints drawn at random (Mitzenmacher)."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "seed": Option(0, 0, 2**53, "of the draws; 0 takes one from the system")
    }

    def __init__(self, seed: float) -> None:
        self._random = Random(int(seed) or None)

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        drawn = self._random.sample(range(len(views)), min(2, len(views)))
        return [
            view.requests / view.slots + (0.0 if place in drawn else APART)
            for place, view in enumerate(views)
        ]
