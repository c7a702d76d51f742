"""Places: what of every endpoint's window this process has in use. Owned by the event loop of one process.

A place is taken when a request is routed and left when it is routed anew or ends, so that it also covers the
time before a call begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

from msgspec import Struct

from model_registry.entities import Endpoint
from model_registry.knobs import Knobs, knobs_of
from router.capacity import Capacity
from router.window import Held, Limits, Window


class Place(Struct, frozen=True, gc=False):
    """One request's part of an endpoint's window."""

    endpoint: Endpoint
    need: Held
    requests: int
    """With the endpoint when it was taken, this one included."""


class _Bounds(NamedTuple):
    """What a window is made of."""

    limits: Limits
    share: float
    tolerance: float


class _Seats:
    """One endpoint's window and what of it is in use."""

    __slots__ = ("endpoint", "kv_tokens", "prefill_tokens", "requests", "window")

    def __init__(self, endpoint: Endpoint, window: Window) -> None:
        self.endpoint = endpoint
        self.window = window
        self.requests = self.kv_tokens = self.prefill_tokens = 0

    def add(self, need: Held, sign: int) -> None:
        self.requests += sign * need.requests
        self.kv_tokens += sign * need.kv_tokens
        self.prefill_tokens += sign * need.prefill_tokens

    def why_not(self, need: Held) -> str | None:
        """What there is no room in for `need`."""
        return self.window.why_not(Held(self.requests, self.kv_tokens, self.prefill_tokens), need)


class Places:
    """Windows by endpoint name."""

    def __init__(self, knobs: Callable[[str], Knobs] = knobs_of, capacity: Capacity | None = None) -> None:
        self._knobs = knobs
        self._capacity = capacity
        self.full: set[str] = set()
        """Endpoints whose window has no place for one more request."""
        self._seats: dict[str, _Seats] = {}
        self.bounded: set[str] = set()
        """Endpoints whose window also counts tokens."""

    def full_for(self, need: Held) -> Set[str]:
        """Endpoints without room for a request of this size."""
        if not self.bounded:
            return self.full
        lacking = {name for name in self.bounded if self._seats[name].why_not(need) is not None}
        return self.full | lacking

    def take(self, endpoint: Endpoint, need: Held) -> Place:
        """A place at `endpoint`, whether there is room or not: that is for admission to say."""
        seats = self._seats.get(endpoint.name)
        if seats is None:
            seats = self._open(endpoint)
        seats.add(need, 1)
        room = None if self._capacity is None else self._capacity.taken(endpoint.name)
        self._mark(endpoint.name, seats, room)
        return Place(endpoint, need, seats.requests)

    def leave(self, place: Place) -> None:
        """Give a place back; exactly once."""
        name = place.endpoint.name
        seats = self._seats[name]
        seats.add(place.need, -1)
        if self._capacity is not None:
            self._capacity.returned(name)
        if name in self.full:
            self._mark(name, seats)

    def learn(self, place: Place, ttft_s: float, idle_ttft_s: float) -> None:
        """The first token of a request came: what the window's size follows."""
        seats = self._seats[place.endpoint.name]
        seats.window.learn(ttft_s, idle_ttft_s, place.requests)
        self._mark(place.endpoint.name, seats)

    def unqueued(self, place: Place, ttft_s: float, idle_ttft_s: float) -> None:
        """What a first token took beside the time in its engine's queue, by the engine's word."""
        self._seats[place.endpoint.name].window.unqueued(ttft_s, idle_ttft_s)

    def requests(self, endpoint: str) -> int:
        """Places taken at an endpoint."""
        seats = self._seats.get(endpoint)
        return 0 if seats is None else seats.requests

    def limits(self) -> Mapping[str, int]:
        """Requests that every endpoint's window takes at present, for metrics and the admin API."""
        return {name: seats.window.limit for name, seats in self._seats.items()}

    def wanted(self, endpoints: Iterable[Endpoint], requests: int) -> None:
        """So many requests wait here that may go to any of `endpoints`."""
        if self._capacity is not None:
            for endpoint in endpoints:
                self._capacity.waits(endpoint.name, requests)

    def shared_anew(self) -> None:
        """Processes have changed slots with each other: windows follow."""
        for name, seats in self._seats.items():
            bounds = self._bounds(seats.endpoint)
            if bounds.limits.slots != seats.window.limits.slots:
                self._resize(name, seats, bounds)
            else:
                self._mark(name, seats)

    def retain(self, endpoints: Iterable[Endpoint]) -> None:
        """Take over new endpoints and changed bounds; forget endpoints that are gone and not in use."""
        known = {endpoint.name: endpoint for endpoint in endpoints}
        if self._capacity is not None:
            self._capacity.retain((one, self._knobs(one.profile).window) for one in known.values())
        for name in [name for name in self._seats if name not in known]:
            if self._seats[name].requests == 0:
                del self._seats[name]
                self.full.discard(name)
                self.bounded.discard(name)
        for name, endpoint in known.items():
            seats = self._seats.get(name)
            if seats is None:
                self._open(endpoint)
            else:
                seats.endpoint = endpoint
                self._resize(name, seats, self._bounds(endpoint))

    def _open(self, endpoint: Endpoint) -> _Seats:
        bounds = self._bounds(endpoint)
        seats = self._seats[endpoint.name] = _Seats(endpoint, Window(*bounds))
        self._resize(endpoint.name, seats, bounds)
        return seats

    def _resize(self, name: str, seats: _Seats, bounds: _Bounds) -> None:
        seats.window = seats.window.resized(*bounds)
        limits = seats.window.limits
        if limits.kv_tokens is not None or limits.prefill_tokens is not None:
            self.bounded.add(name)
        else:
            self.bounded.discard(name)
        self._mark(name, seats)

    def _bounds(self, endpoint: Endpoint) -> _Bounds:
        """What bounds a window here: the whole engine, or this process's part of what all send there."""
        knobs = self._knobs(endpoint.profile)
        slots, kv_tokens = endpoint.max_concurrency, _stated(endpoint.server_schema, "kv_tokens")
        if self._capacity is None:
            return _Bounds(Limits(slots, kv_tokens), knobs.window, knobs.window_tolerance)
        own = self._capacity.slots(endpoint.name)
        if kv_tokens is not None:
            kv_tokens = math.ceil(kv_tokens * min(1.0, own / (slots * knobs.window)))
        return _Bounds(Limits(own, kv_tokens), 1.0, knobs.window_tolerance)

    def _mark(self, name: str, seats: _Seats, room: int | None = None) -> None:
        """Note whether the endpoint is full; `room`: of what all processes share, where just asked."""
        if room is None:
            room = 1 if self._capacity is None else self._capacity.room(name)
        if room < 1 or seats.requests >= seats.window.limit:
            self.full.add(name)
        else:
            self.full.discard(name)


def _stated(schema: Mapping[str, Any], field: str) -> int | None:
    value = schema.get(field)
    return value if isinstance(value, int) and value > 0 else None
