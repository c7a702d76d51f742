"""How a total is divided among workers. Pure; every worker computes its own part from the same reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Share(NamedTuple):
    """What one worker reports of its slice of a resource."""

    used: int = 0
    demand: int = 0
    """What it uses, or would use if it had it."""
    weight: float = 1.0
    held: int = 0
    free_in_s: float = 0.0
    """When a part of what it uses is free again, as far as it knows; 0: no telling."""


def targets(total: int, shares: Mapping[str, Share]) -> dict[str, int]:
    """What each worker should hold: weighted max-min fair by demand, and some room ahead of demand.

    Nobody gets more than it can use while others lack. Of what nobody needs now, half is spread evenly, for
    bursts that cannot wait for an answer, and half stays free, for whoever asks first. The sum is at most
    `total`.
    """
    found = _max_min(total, shares)
    ahead = (total - sum(found.values())) // (2 * len(found)) if found else 0
    return {name: part + ahead for name, part in found.items()}


def _max_min(total: int, shares: Mapping[str, Share]) -> dict[str, int]:
    found = dict.fromkeys(sorted(shares), 0)
    left = total
    open_ones = [name for name in found if shares[name].demand > 0]
    while open_ones and left > 0:
        weight = sum(shares[name].weight for name in open_ones)
        content = [n for n in open_ones if shares[n].demand <= left * shares[n].weight / weight]
        if not content:
            _divide(left, {name: shares[name].weight / weight for name in open_ones}, found)
            break
        for name in content:
            found[name] = shares[name].demand
        left -= sum(found[name] for name in content)
        open_ones = [name for name in open_ones if name not in content]
    return found


def _divide(left: int, parts: Mapping[str, float], found: dict[str, int]) -> None:
    """Whole units by `parts`, what is left over to the largest remainders; ties go by name."""
    exact = {name: left * part for name, part in parts.items()}
    for name, part in exact.items():
        found[name] = int(part)
    over = left - sum(found[name] for name in exact)
    for name in sorted(exact, key=lambda name: (found[name] - exact[name], name))[:over]:
        found[name] += 1


def even_part(total: int, rank: int, workers: int) -> int:
    """The part of the worker of this `rank` (from 0) when nobody can be asked; parts add up to `total`."""
    each, over = divmod(total, max(1, workers))
    return each + (rank < over)


class Terms(NamedTuple):
    """What a worker last heard of a slice."""

    held: int = 0
    until_s: float = 0.0
    """Until when `held` is confirmed."""
    even: int = 0
    """Its part when nobody can be asked."""
    unheld: int = 0
    """Its part of what nobody held when it last heard."""


def allowance(terms: Terms, lease_s: float, window_s: float, now_s: float) -> int:
    """What a worker may use at `now_s`: all it holds, and past `until_s` no more than its even part.

    A lease later, when the others' slices have lapsed too, it may also use its part of what nobody held; and
    once what was used before has come back, all of its even part. So the allowances of all workers never add
    up to more than the total, but for what another one was granted between this one's last report and the
    end of Redis, and that only where there is a window.
    """
    late_s = now_s - terms.until_s
    if late_s < 0:
        return terms.held
    if late_s < lease_s:
        return min(terms.held, terms.even)
    if late_s < lease_s + window_s:
        return min(terms.held + terms.unheld, terms.even)
    return terms.even
