"""Lending: deployments of one model under several profiles serve each other's requests. Pure.

Gateways send a request to another profile's endpoints where its own has none that is ready or, if its
profile says so, where they are full. So what one group is about to take down may stay for another that
would start the same, and a group that hardly anybody asks for need not run at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

STAND_IN = 0.6
"""How full another group may get by that, in the mean."""
STAND_ON = 0.8
"""And how full, for it to go on."""


class Side(NamedTuple):
    """One group, in replicas of its own."""

    wanted: int
    ready: int
    up: int
    least: int
    held: int
    load: float
    requests_per_s: float
    """Of one replica."""
    spills_to: tuple[str, ...] = ()
    """Profiles that stand in for it, the first choice first."""
    spills_when_full: bool = True


class Lent(NamedTuple):
    """What becomes of one group's number."""

    wanted: int
    reason: str = ""


def lent(sides: Mapping[str, Side]) -> dict[str, Lent]:
    """By profile, of one model's groups that lend; `reason` is empty where the number stays."""
    now = {profile: Lent(side.wanted) for profile, side in sides.items()}
    for borrower, side in sorted(sides.items()):
        for lender in side.spills_to:
            if lender in sides and lender != borrower and now[borrower].wanted == side.wanted:
                _stand_in(now, sides, borrower, lender)
                _keep(now, sides, borrower, lender)
    return now


def _stand_in(now: dict[str, Lent], sides: Mapping[str, Side], borrower: str, lender: str) -> None:
    """The last replica goes, or does not come, where the lender hardly feels its load."""
    side, other = sides[borrower], sides[lender]
    if side.wanted != 1 or side.least > 0 or side.held or not other.ready or now[lender].wanted < 1:
        return
    both = other.load + side.load * side.requests_per_s / other.requests_per_s
    if both <= (STAND_IN if side.up else STAND_ON) * min(other.ready, now[lender].wanted):
        now[borrower] = Lent(0, f"its load of {side.load:.2f} replicas is served under {lender}")


def _keep(now: dict[str, Lent], sides: Mapping[str, Side], borrower: str, lender: str) -> None:
    """Replicas that the lender would take down stay in place of those that the borrower would start."""
    side, other = sides[borrower], sides[lender]
    short, spare = now[borrower].wanted - side.up, other.ready - now[lender].wanted
    if short <= 0 or spare <= 0 or not (side.spills_when_full or not side.up):
        return
    ratio = other.requests_per_s / side.requests_per_s
    taken = min(spare, ceil(short / ratio))
    saved = min(short, int(taken * ratio + 1e-9))
    if saved < 1:
        return
    now[lender] = Lent(now[lender].wanted + taken, f"{taken} of them lent to {borrower}")
    now[borrower] = Lent(now[borrower].wanted - saved, f"{saved} fewer, lent by {lender}")
