"""Budget: a pool's replicas, shared out among the deployments that want them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Claim(NamedTuple):
    """One deployment's."""

    least: int
    wanted: int


def shared(most: int | None, claims: Mapping[str, Claim]) -> dict[str, int]:
    """Replicas for each claim: what it wants, if all of that is within `most`.

    Else everyone's least first, then one by one to whoever has the smallest part of what it wants.
    """
    wanted = {name: max(claim.least, claim.wanted) for name, claim in claims.items()}
    if most is None or sum(wanted.values()) <= most:
        return wanted
    got = dict.fromkeys(claims, 0)
    left = most
    for targets in ({name: claim.least for name, claim in claims.items()}, wanted):
        while left:
            short = [name for name in sorted(claims) if got[name] < targets[name]]
            if not short:
                break
            got[min(short, key=lambda name: got[name] / wanted[name])] += 1
            left -= 1
    return got
