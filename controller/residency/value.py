"""Value: what it is worth to keep a model in memory, or to have it there before anybody asks. Pure.

In seconds of waiting that it saves, so that models of all sizes, loads and loading times compare.
"""

from __future__ import annotations

from typing import NamedTuple


class Outlook(NamedTuple):
    """What is expected of one model's requests."""

    use: float = 0.0
    """Probability that somebody asks for it within `HORIZON_S`."""
    rate: float = 0.0
    """Requests per second once somebody does."""


HORIZON_S = 300.0
"""How far ahead a load that nobody has asked for yet may pay."""


def absence_s(outlook: Outlook, load_s: float) -> float:
    """Seconds that requests are going to wait, should the model be absent when it is next asked for.

    The first waits for the whole load; those that come meanwhile for half of it, on average.
    """
    return outlook.use * load_s * (1.0 + outlook.rate * load_s / 2)


def density(outlook: Outlook, load_s: float, mib: float) -> float:
    """`absence_s` per MiB that keeping it takes."""
    return absence_s(outlook, load_s) / max(mib, 1e-9)
