"""UnderWay: how many requests of each tenant one model's endpoints have. Pure.

Who has far more under way than others has had more than its part already, whether it took turns for that or
found room: its burst comes after theirs (`router.tenant_turns`).
"""

from __future__ import annotations

AHEAD = 3.0
"""Times the others' mean per weight. A tenant that has just got rid of all that it had waiting stays below (2
times it did not always), one that begins to flood does not."""


class UnderWay:
    """Requests of each tenant, from dispatch to end; costs two look-ups a request."""

    __slots__ = ("_counts", "_total", "_weight", "_weights")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._weights: dict[str, float] = {}
        self._total = 0
        self._weight = 0.0
        """Of all tenants that have something under way."""

    def __len__(self) -> int:
        return self._total

    def begin(self, tenant: str, weight: float) -> None:
        """A request goes."""
        count = self._counts.get(tenant, 0)
        self._counts[tenant] = count + 1
        self._total += 1
        if count == 0:
            self._weights[tenant] = weight
            self._weight += weight

    def end(self, tenant: str) -> None:
        """One that went is over."""
        count = self._counts[tenant] - 1
        self._total -= 1
        if count:
            self._counts[tenant] = count
            return
        del self._counts[tenant]
        self._weight -= self._weights.pop(tenant)

    def is_ahead(self, tenant: str, weight: float) -> bool:
        """Whether it has more than `AHEAD` times per weight what the others have; alone, anything is."""
        own = self._counts.get(tenant, 0)
        others = self._total - own
        if others == 0:
            return own > 0
        others_weight = self._weight - self._weights.get(tenant, 0.0)
        return own / weight > AHEAD * others / others_weight
