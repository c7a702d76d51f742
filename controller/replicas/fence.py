"""Fence: what every act outside Redis asks first, so that a controller which was frozen acts no more."""

from __future__ import annotations

from model_registry.leadership import Leadership


class NotLeadingError(Exception):
    """The claim to lead does not hold for long enough to begin anything."""


class Fence:
    """The claim of this process, as last renewed."""

    def __init__(self, margin_s: float) -> None:
        self._margin_s = margin_s
        self._leadership: Leadership | None = None

    def renew(self, leadership: Leadership | None) -> None:
        """From now on this claim counts."""
        self._leadership = leadership

    def token(self) -> int:
        """The claim's token. Raises NotLeadingError where less than the margin is left of it."""
        if self._leadership is None or not self._leadership.holds(self._margin_s):
            raise NotLeadingError("this controller's claim to lead has lapsed, or is about to")
        return self._leadership.token
