"""Option: one number that a routing policy can be given, with its bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from router.view import Ask, EndpointView, Policy


class Option(NamedTuple):
    """`low` and `high` are allowed themselves; `meaning` is shown where a value is refused."""

    default: float
    low: float
    high: float
    meaning: str

    def refusal(self, value: object) -> str | None:
        """Why `value` cannot be taken, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"must be a number ({self.meaning})"
        if not self.low <= value <= self.high:
            return f"must be between {self.low:g} and {self.high:g} ({self.meaning})"
        return None


class Kind(Protocol):
    """What makes a policy: most often its class."""

    OPTIONS: Mapping[str, Option]

    def __call__(self, *_: Any, **options: Any) -> Policy:
        """A new policy. Every option of `OPTIONS` is given by its name, as a number that has been checked."""


class Memoryless:
    """A policy that goes by its views alone."""

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None:
        """Nothing to remember."""
