"""Calls: gateways that cannot wait for the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from model_registry.errors import RegistryUnavailableError

BLOCK_S = 5.0
PAUSE_S = 1.0
"""After Redis was away; looks come from time to time anyway."""


class Called(Protocol):
    """`model_registry.demand.store.DemandStore`."""

    async def called(self, after: str, block_s: float) -> str: ...


async def follow(reports: Called, on_call: Callable[[], None]) -> None:
    """Tell `on_call` of every call from now on, until cancelled."""
    last: str | None = None
    while True:
        try:
            told = await (reports.called("$", 0) if last is None else reports.called(last, BLOCK_S))
        except RegistryUnavailableError:
            await asyncio.sleep(PAUSE_S)
            continue
        if last is not None and told != last:
            on_call()
        last = told
