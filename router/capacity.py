"""Capacity: how many of an endpoint's slots this gateway process may use now, all of them sharing one total.

Owned by the event loop of one process. What may be used is a slice (`model_registry.slices`): asking for it
waits for nothing, and the slices of all processes never add up to more than the endpoint has.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

from model_registry.entities import Endpoint
from model_registry.slices.exchange import Exchange
from model_registry.slices.slice import Slice
from telemetry.slice_series import Units

_AGAIN_S = 0.02
"""How soon more is asked for again at once, while requests wait for an endpoint."""


class Capacity:
    """Slots by endpoint name."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._slices: dict[str, Slice] = {}
        self._asked_s: dict[str, float] = {}

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever slots may have come or gone."""
        self._exchange.on_change = changed

    def retain(self, endpoints: Iterable[tuple[Endpoint, float]]) -> None:
        """Share the slots of these, each endpoint with the share of its slots that may be in use at once.

        An endpoint that is gone is forgotten when nothing runs there.
        """
        known = {endpoint.name: shared_slots(endpoint, share) for endpoint, share in endpoints}
        for name, total in known.items():
            self._slices[name] = self._exchange.open(_resource(name), total, standing=True)
        now_s = self._loop.time()
        for name in [name for name in self._slices if name not in known]:
            if self._slices[name].usage.total(now_s) == 0:
                del self._slices[name]
                self._asked_s.pop(name, None)
                self._exchange.close(_resource(name))

    def slots(self, endpoint: str) -> int:
        """Requests that this process may have at an endpoint now; 0 for one that is not known here."""
        found = self._slices.get(endpoint)
        return 0 if found is None else found.allowed(self._loop.time())

    def units(self) -> dict[str, Units]:
        """What this process may use, uses and wants of each endpoint's slots, for metrics."""
        now_s = self._loop.time()
        return {
            name: Units(one.allowed(now_s), one.usage.total(now_s), one.share(now_s).demand)
            for name, one in self._slices.items()
        }

    def room(self, endpoint: str) -> int:
        """Requests that it may send there now; negative while more are there than may be."""
        found = self._slices.get(endpoint)
        return 0 if found is None else found.room(self._loop.time())

    def taken(self, endpoint: str) -> int:
        """A request goes there, whether there is room or not; how much there is left then, as of `room`."""
        found = self._slices.get(endpoint)
        return 0 if found is None else found.take(1, self._loop.time())

    def returned(self, endpoint: str) -> None:
        """It has ended; exactly once."""
        if (found := self._slices.get(endpoint)) is not None:
            now_s = self._loop.time()
            found.give_back(1, now_s, now_s)

    def waits(self, endpoint: str, requests: int) -> None:
        """So many requests wait here that may go there; more slots are asked for where there is no room."""
        found = self._slices.get(endpoint)
        if found is None:
            return
        now_s = self._loop.time()
        found.waiting = requests
        if requests == 0 or found.room(now_s) > 0 or found.allowed(now_s) >= found.total:
            return
        if now_s - self._asked_s.get(endpoint, -math.inf) >= _AGAIN_S:
            self._asked_s[endpoint] = now_s
            self._exchange.want_now(found)


def shared_slots(endpoint: Endpoint, share: float) -> int:
    """Requests that all processes together may have at an endpoint. Pure."""
    return max(1, math.ceil(endpoint.max_concurrency * share))


def _resource(endpoint: str) -> str:
    return f"endpoint:{endpoint}"
