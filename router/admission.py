"""Admission: whether a request goes to an endpoint now, waits for one, or is refused, and why. Pure.

429 says that the capacity exists and is taken, 503 that there is none. A refusal carries the time after which
the same request would be taken if nobody else came: it is computed from how fast the queue drains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from model_registry.knobs import Knobs
from model_registry.tenants import Priority

Action = Literal["dispatch", "wait", "refuse"]
OUTPUT_WEIGHT = 2.0
"""An output token's service beside a prompt token's: each takes a step of its own."""
LATENESS: Mapping[Priority, float] = MappingProxyType({"critical": 1.0, "standard": 1.0, "sheddable": 0.5})
"""Share of the allowed time to first token that a prediction may reach before the request is refused."""
ISOLATED_FACTOR = 2.0
"""A long prompt may take this many times what it takes on an idle engine, whatever the target is."""
_IDLE_FACTOR = 1.2
_LONGEST_RETRY_S = 600.0
_DRAIN_MEMORY_S = 10.0


def service(prompt_tokens: int, output_tokens: int) -> float:
    """Weighted tokens that a request is charged."""
    return prompt_tokens + OUTPUT_WEIGHT * output_tokens


def allowed_ttft_s(knobs: Knobs, isolated_s: float) -> float:
    """What the profile's target means for a prompt that takes `isolated_s` on an idle engine."""
    return max(knobs.ttft_target_s, ISOLATED_FACTOR * isolated_s)


class Drain:
    """How fast a queue empties, in tokens per second, from what left it lately while it was not empty."""

    __slots__ = ("_last_s", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._last_s = 0.0

    def began(self, now_s: float) -> None:
        """The queue is not empty any more."""
        self._last_s = now_s

    def left(self, tokens: int, now_s: float) -> None:
        """A request of `tokens` was dispatched from the queue."""
        passed_s = now_s - self._last_s
        kept = math.exp(-passed_s / _DRAIN_MEMORY_S)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + passed_s
        self._last_s = now_s

    def seconds_for(self, tokens: float, now_s: float) -> float | None:
        """How long the queue takes to pass on `tokens`; None: nothing is known.

        Time without any departure counts, so that a queue that stands still predicts longer and longer.
        """
        if self._tokens <= 0:
            return None
        stalled_s = now_s - self._last_s
        rate = self._tokens / max(self._seconds + max(0.0, stalled_s - _DRAIN_MEMORY_S), 1e-3)
        return tokens / rate


class Standing(NamedTuple):
    """What a decision on admission is made of."""

    exists: bool
    """Some endpoint is ready that may serve the request, busy or not."""
    has_room: bool
    """One of them has room, and nobody waits for it."""
    is_full: bool = False
    """The queue takes nobody else."""
    wait_s: float | None = 0.0
    """Forecast of the time in the queue; None: not known."""
    ttft_s: float = 0.0
    """Forecast of the time from dispatch to first token."""
    isolated_s: float = 0.0
    """The same on an idle engine."""
    waited_s: float = 0.0
    """In the queue so far."""
    drain_s: float | None = None
    """How long all that waits takes to drain; None: not known."""


class Verdict(NamedTuple):
    """What to do with a request; `reason` is a constant for metrics and `explain`."""

    action: Action
    reason: str
    retry_after_s: float | None = None
    predicted_s: float | None = None
    """Forecast of the time to first token since the request came."""


def admit(standing: Standing, knobs: Knobs, priority: Priority, deadline_in_s: float = math.inf) -> Verdict:
    """Dispatch, wait or refuse.

    `deadline_in_s`: when the first token is due, from now; a request that cannot make it is refused at once,
    whatever the profile.
    """
    if not standing.exists:
        return Verdict("wait", "no_endpoint")
    wait_s = 0.0 if standing.has_room else standing.wait_s
    predicted = None if wait_s is None else standing.waited_s + wait_s + standing.ttft_s
    if predicted is not None:
        late_by_s = _late_by_s(predicted, standing, knobs, priority, deadline_in_s)
        if late_by_s > 0:
            return Verdict("refuse", "predicted_late", retry_after_s(late_by_s), predicted)
    if standing.has_room:
        return Verdict("dispatch", "room", None, predicted)
    if standing.is_full:
        return Verdict("refuse", "queue_full", retry_after_s(standing.drain_s), predicted)
    return Verdict("wait", "no_room", None, predicted)


def _late_by_s(
    predicted: float, standing: Standing, knobs: Knobs, priority: Priority, deadline_in_s: float
) -> float:
    """Seconds by which the first token misses what it may take; ≤ 0: it does not."""
    late_by_s = predicted - standing.waited_s - deadline_in_s
    if knobs.refuse_late:
        allowed = allowed_ttft_s(knobs, standing.isolated_s)
        # On an idle engine nothing is late because of load.
        allowed = max(LATENESS[priority] * allowed, _IDLE_FACTOR * standing.isolated_s)
        late_by_s = max(late_by_s, predicted - allowed)
    return late_by_s


def retry_after_s(seconds: float | None) -> float:
    """What a client is told: whole seconds, at least one, and not for ever."""
    return float(min(max(1, math.ceil(seconds or 0.0)), _LONGEST_RETRY_S))
