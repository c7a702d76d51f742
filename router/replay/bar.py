"""Bar: what a figure has to reach, or must not exceed."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Bar(NamedTuple):
    """`side` of `limit`, which is allowed itself."""

    side: Literal["at least", "at most"]
    limit: float

    def met(self, figure: float) -> bool:
        """Whether a figure is on the right side."""
        return figure >= self.limit if self.side == "at least" else figure <= self.limit
