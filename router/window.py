"""Window: how much an endpoint is sent at once; the rest waits at the gateway, to be reordered.

Bounded by the engine's slots, by its KV cache (a TensorRT-LLM engine that evicts nothing reserves prompt and
largest answer before it starts a request) and by prompt tokens that it has not computed yet. Within these
bounds the number of requests is found by a gradient on normalised TTFT: the time from dispatch to first token
over the forecast for an idle engine. Normalised, since a mix of prompt lengths would look like congestion.
What that is without a queue is seen while the window is hardly used, and told by engines at any load.
Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec import Struct

_CALM_SHARE = 0.5
"""An endpoint with no more than this share of its window in use shows what its TTFT is without a queue."""
_CALM_WEIGHT = 0.05
_SHORT_WEIGHT = 0.2
"""Of one observation in the running means."""
_ROUND_SHARE = 0.5
"""Of the window: observations between two changes of its size, so that a change is felt before the next."""
_WORST_GRADIENT = 0.5
_LEAST_SHARE = 0.125
"""Of its ceiling, below which a window never falls: a forecast may be wrong."""


class Limits(NamedTuple):
    """What an engine takes; None: not known, so not bounded."""

    slots: int
    kv_tokens: int | None = None
    """Prompt and largest answer of the requests that it may hold at once."""
    prefill_tokens: int | None = None
    """Prompt tokens that may be with it uncomputed, such as twice its `max_num_tokens`."""


class Held(Struct, frozen=True, gc=False):
    """What an endpoint has already, or what one request adds."""

    requests: int = 0
    kv_tokens: int = 0
    prefill_tokens: int = 0


class Window:
    """The window of one endpoint; `share` of the slots is its ceiling.

    `tolerance`: by what factor TTFT may exceed that of a calm engine before the window shrinks.
    """

    __slots__ = ("_calm", "_limit", "_seen", "_short", "ceiling", "limits", "tolerance")

    def __init__(self, limits: Limits, share: float = 1.0, tolerance: float = 2.0) -> None:
        self.limits = limits
        self.ceiling = max(1, math.ceil(limits.slots * share))
        self.tolerance = tolerance
        self._limit = float(self.ceiling)
        self._calm: float | None = None
        self._short: float | None = None
        self._seen = 0
        """Observations since the size last changed."""

    @property
    def limit(self) -> int:
        """Requests that may be with the endpoint at once."""
        return int(self._limit)

    def resized(self, limits: Limits, share: float, tolerance: float) -> Window:
        """A window for other bounds that keeps what was learned; itself where nothing changed."""
        window = Window(limits, share, tolerance)
        if (window.limits, window.ceiling, window.tolerance) == (self.limits, self.ceiling, self.tolerance):
            return self
        window._calm, window._short = self._calm, self._short
        window._limit = max(1.0, window.ceiling * self._limit / self.ceiling)
        return window

    def why_not(self, held: Held, more: Held) -> str | None:
        """What the endpoint has no room in for `more`: `slots`, `kv` or `prefill`; None: there is room.

        What would not even fit into an empty engine is for the engine to refuse.
        """
        if held.requests + more.requests > self.limit:
            return "slots"
        limits = self.limits
        if (
            limits.kv_tokens is not None
            and held.kv_tokens
            and held.kv_tokens + more.kv_tokens > limits.kv_tokens
        ):
            return "kv"
        if (
            limits.prefill_tokens is not None
            and held.prefill_tokens
            and held.prefill_tokens + more.prefill_tokens > limits.prefill_tokens
        ):
            return "prefill"
        return None

    def learn(self, ttft_s: float, idle_ttft_s: float, requests: int) -> None:
        """A first token came `ttft_s` after dispatch; an idle engine's was due after `idle_ttft_s`.

        `requests` were with the endpoint at dispatch, this one included.
        """
        seen = ttft_s / max(idle_ttft_s, 1e-3)
        self._short = seen if self._short is None else self._short + _SHORT_WEIGHT * (seen - self._short)
        if requests <= max(1.0, _CALM_SHARE * self._limit):
            self._calmed(seen)
            return  # a window that is not used up is not what made the request slow
        self._seen += 1
        if self._seen < _ROUND_SHARE * self._limit:
            return
        self._seen = 0
        calm = self._calm if self._calm is not None else 1.0
        gradient = max(_WORST_GRADIENT, min(1.0, self.tolerance * calm / self._short))
        asked = self._limit * gradient + math.sqrt(self._limit)
        floor = max(1.0, _LEAST_SHARE * self.ceiling)
        self._limit = min(max(asked, floor), float(self.ceiling))

    def unqueued(self, ttft_s: float, idle_ttft_s: float) -> None:
        """A first token took `ttft_s` beside its time in the engine's queue, as the engine told at the end.

        It does not move the window: an answer's end comes so long after its first token that a window which
        went by it would swing.
        """
        self._calmed(ttft_s / max(idle_ttft_s, 1e-3))

    def _calmed(self, seen: float) -> None:
        self._calm = seen if self._calm is None else self._calm + _CALM_WEIGHT * (seen - self._calm)
