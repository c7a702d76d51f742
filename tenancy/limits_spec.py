"""Limits: how much a tenant may use at once and in a minute."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """None: no limit."""

    concurrency: int | None = None
    """Requests at once, over all gateways."""
    requests_per_min: int | None = None
    """Requests begun within any 60 s."""
    tokens_per_min: int | None = None
    """Tokens of prompts and answers of the requests begun within any 60 s."""


NO_LIMITS = Limits()
