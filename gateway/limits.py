"""Limits of a tenant at the HTTP front: reserved before a request is routed, shown in its answer's head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gateway.api.requests import ApiRequest
from gateway.entry import Entry
from tenancy.keys import Identity
from tenancy.limits import Standing, TenantLimits
from tenancy.limits_spec import NO_LIMITS

_CHARS_PER_TOKEN = 4
"""What a prompt is estimated by that no tokenizer here has read; the end settles it."""


async def reserve(limits: TenantLimits, entry: Entry, identity: Identity, tokens: Callable[[], int]) -> None:
    """Take what the request needs of its tenant's limits. Raises RateLimitedError, BeyondLimitError.

    `tokens`: those of the prompt and the expected answer, asked for where there are limits only. The answer,
    or the refusal, says what is left.
    """
    held = identity.policy.limits
    if held == NO_LIMITS:
        return
    first = entry.reservation is None
    if entry.reservation is not None:  # another model stands in for the one that was asked for
        entry.reservation.settle(0, begun=False)
    name = identity.tenant.name
    try:
        entry.reservation = await limits.reserve(name, held, tokens())
    finally:
        standings = limits.standing(name, held) if first else {}
        entry.response.add_headers(b"".join(_headers(kind, at) for kind, at in standings.items()))


def estimated_prompt(api: ApiRequest) -> int:
    """About how many tokens the prompt of a request has."""
    characters = api.characters
    return estimated_tokens(api.raw) if characters is None else characters // _CHARS_PER_TOKEN


def estimated_tokens(said: object) -> int:
    """About how many tokens a prompt has, by the texts in a body or a part of it."""
    return _characters(said) // _CHARS_PER_TOKEN


def _characters(said: Any) -> int:
    """One loop for all that is held, and no call for a part of it."""
    total = 0
    held: list[Iterable[Any]] = [[said]]
    for parts in held:
        for part in parts:
            kind = type(part)
            if kind is str:
                if part[:5] != "data:":  # what is inlined is not text
                    total += len(part)
            elif kind is dict:
                held.append(part.values())
            elif kind is list:
                held.append(part)
            elif kind is int or kind is bool:
                total += _CHARS_PER_TOKEN  # a token id
    return total


def _headers(kind: str, at: Standing) -> bytes:
    return (
        f"x-ratelimit-limit-{kind}: {at.limit}\r\n"
        f"x-ratelimit-remaining-{kind}: {at.remaining}\r\n"
        f"x-ratelimit-reset-{kind}: {duration(at.reset_s)}\r\n"
    ).encode()


def duration(seconds: float) -> str:
    """As OpenAI writes it: `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{round(1000 * max(0.0, seconds))}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
