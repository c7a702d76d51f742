"""Policies that take turns, whatever the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar

from router.policies.options import Option
from router.view import Ask, EndpointView


class RoundRobin:
    """The endpoint whose last turn is longest ago; new ones come first."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self) -> None:
        self._turn = 0
        self._last: dict[str, int] = {}

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        last = self._last
        return [last.get(view.name, 0) for view in views]

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None:
        self._turn += 1
        self._last[view.name] = self._turn


class Weighted:
    """Shares by weight, exact over any stretch of requests: stride scheduling. For canaries.

    An endpoint of weight 0 is never taken.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        """When the next turn of each is due, in turns of an endpoint of weight 1."""
        self._now = 0.0
        """When the last turn that was taken was due: who comes anew or back begins here, without arrears."""

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        return [self._due(view) if view.weight > 0 else inf for view in views]

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None:
        if view.weight > 0:
            due = self._due(view)
            self._now = max(self._now, due)
            self._next[view.name] = due + 1 / view.weight

    def _due(self, view: EndpointView) -> float:
        turn = 1 / view.weight
        due = self._next.setdefault(view.name, self._now + turn)
        return min(max(due, self._now), self._now + turn)
