"""Limits: what a tenant may have at once and in a minute, reserved at admission and settled at the end.

Reservations come from slices that this process holds (`model_registry.slices`), so that none waits for Redis,
but for a moment near a limit. A minute is every span of 60 s, not one by the clock.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from model_registry.slices.exchange import Exchange
from model_registry.slices.slice import Slice
from telemetry.slice_series import Units
from tenancy.errors import BeyondLimitError, RateLimitedError
from tenancy.limits_spec import Limits

MINUTE_S = 60.0
Kind = Literal["concurrency", "requests", "tokens"]
_PREFIX = "tenant:"
_MEANING: dict[Kind, str] = {
    "concurrency": "requests at once",
    "requests": "requests per minute",
    "tokens": "tokens per minute",
}


class Standing(NamedTuple):
    """Where a tenant stands with one of its limits, over all workers, as far as they have told."""

    limit: int
    remaining: int
    reset_s: float
    """When all of it is there again, if nothing more is used."""


class Reservation:
    """What one request has taken of its tenant's limits; to be settled once."""

    def __init__(self, limits: TenantLimits, needs: dict[Kind, tuple[str, int]], taken_s: float) -> None:
        self._limits = limits
        self._needs = needs
        self._taken_s = taken_s
        self._open = True

    def settle(self, tokens: int, *, begun: bool = True) -> None:
        """The request has ended and cost `tokens`. Of one that no engine has `begun` with nothing counts."""
        if self._open:
            self._open = False
            self._limits.settle(self._needs, self._taken_s, tokens, begun=begun)


class TenantLimits:
    """Every tenant's slices in this process; owned by its event loop."""

    def __init__(self, exchange: Exchange, top_up_wait_s: float) -> None:
        self._exchange = exchange
        self._top_up_wait_s = top_up_wait_s
        self._loop = asyncio.get_running_loop()
        self._totals: dict[str, int] = {}

    async def reserve(self, tenant: str, limits: Limits, tokens: int) -> Reservation | None:
        """Take one request of about `tokens` of what `tenant` may have; None where it has no limits.

        Waits for a top-up where this worker's slice is used up. Raises RateLimitedError,
        BeyondLimitError.
        """
        needs = dict(_needs(tenant, limits, tokens))
        if not needs:
            return None
        self._learn(tenant, limits)
        deadline_s = self._loop.time() + self._top_up_wait_s
        while (short := self._short(needs)) is not None:
            kind, one, units = short
            if units > one.total:
                raise BeyondLimitError(
                    f"This request needs about {units} tokens; your limit is {one.total} tokens per minute. "
                    "Shorten the prompt or lower the number of tokens it may generate."
                )
            if not await self._exchange.topped_up(one, units, max(0.0, deadline_s - self._loop.time())):
                raise self._refusal(kind, one, units)
        now_s = self._loop.time()
        for name, units in needs.values():
            one = self._slice(name)
            one.take(units, now_s)
            if one.room(now_s) < units:
                self._exchange.want_now(one)  # ahead of the next one
        return Reservation(self, needs, now_s)

    def settle(self, needs: dict[Kind, tuple[str, int]], taken_s: float, tokens: int, *, begun: bool) -> None:
        """Give back what was reserved and not used, and take what was used and not reserved."""
        now_s = self._loop.time()
        for kind, (name, units) in needs.items():
            one = self._slice(name)
            if kind == "concurrency" or (kind == "requests" and not begun):
                one.give_back(units, taken_s, now_s)
            elif kind == "tokens" and tokens < units:
                one.give_back(units - tokens, taken_s, now_s)
            elif kind == "tokens" and tokens > units:
                one.take(tokens - units, now_s)

    def standing(self, tenant: str, limits: Limits) -> dict[Kind, Standing]:
        """Where the tenant stands with its requests and tokens per minute."""
        self._learn(tenant, limits)
        now_s = self._loop.time()
        found: dict[Kind, Standing] = {}
        for kind, (name, _) in _needs(tenant, limits, 1):
            if kind != "concurrency":
                one = self._slice(name)
                used = one.used_by_all(now_s)
                own_s = one.usage.free_in_s(now_s, one.usage.total(now_s))
                reset_s = MINUTE_S if used > one.usage.total(now_s) else own_s
                found[kind] = Standing(one.total, max(0, one.total - used), reset_s)
        return found

    def units(self) -> dict[tuple[str, str], Units]:
        """What this process may use, uses and wants, by tenant and limit, for metrics."""
        now_s = self._loop.time()
        found: dict[tuple[str, str], Units] = {}
        for name in self._totals:
            one = self._exchange.held(name)
            if one is not None:
                tenant, _, kind = name.removeprefix(_PREFIX).rpartition(":")
                found[tenant, kind] = Units(
                    one.allowed(now_s), one.usage.total(now_s), one.share(now_s).demand
                )
        return found

    def _learn(self, tenant: str, limits: Limits) -> None:
        for kind, total in _totals(limits):
            self._totals[_name(tenant, kind)] = total

    def _slice(self, name: str) -> Slice:
        window_s = 0.0 if name.endswith(":concurrency") else MINUTE_S
        return self._exchange.open(name, self._totals[name], window_s=window_s)

    def _short(self, needs: dict[Kind, tuple[str, int]]) -> tuple[Kind, Slice, int] | None:
        """The first slice that has not got what is needed."""
        now_s = self._loop.time()
        for kind, (name, units) in needs.items():
            one = self._slice(name)
            if one.room(now_s) < units:
                return kind, one, units
        return None

    def _refusal(self, kind: Kind, one: Slice, units: int) -> RateLimitedError:
        now_s = self._loop.time()
        used = min(one.total, one.used_by_all(now_s))
        short = max(1, used + units - one.total)
        wait_s = 1.0 if kind == "concurrency" else (one.free_in_s(short, now_s) or 1.0)
        wait_s = math.ceil(max(wait_s, 1.0))
        return RateLimitedError(
            f"Rate limit reached: {_MEANING[kind]}: limit {one.total}, used {used}, requested {units}. "
            f"Try again in {wait_s} s.",
            wait_s,
        )


def _name(tenant: str, kind: Kind) -> str:
    return f"{_PREFIX}{tenant}:{kind}"


def _totals(limits: Limits) -> Iterator[tuple[Kind, int]]:
    if limits.concurrency is not None:
        yield "concurrency", limits.concurrency
    if limits.requests_per_min is not None:
        yield "requests", limits.requests_per_min
    if limits.tokens_per_min is not None:
        yield "tokens", limits.tokens_per_min


def _needs(tenant: str, limits: Limits, tokens: int) -> Iterator[tuple[Kind, tuple[str, int]]]:
    for kind, _ in _totals(limits):
        yield kind, (_name(tenant, kind), max(1, tokens) if kind == "tokens" else 1)
