"""Places: what of every endpoint's window this process has in use. Owned by the event loop of one process.

A place is taken when a request is routed and left when it is routed anew or ends, so that it also covers the
time before a call begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple

from model_registry.entities import Endpoint
from model_registry.knobs import Knobs, knobs_of
from router.window import Held, Limits, Window


class Place(NamedTuple):
    """One request's part of an endpoint's window."""

    endpoint: Endpoint
    need: Held
    requests: int
    """With the endpoint when it was taken, this one included."""


class _Seats:
    """One endpoint's window and what of it is in use."""

    __slots__ = ("held", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.held = Held()


class Places:
    """Windows by endpoint name."""

    def __init__(self, knobs: Callable[[str], Knobs] = knobs_of) -> None:
        self._knobs = knobs
        self.full: set[str] = set()
        """Endpoints whose window has no place for one more request."""
        self._seats: dict[str, _Seats] = {}
        self._bounded: set[str] = set()
        """Endpoints whose window also counts tokens."""
        self._slots: dict[str, int] = {}

    def full_for(self, need: Held) -> Set[str]:
        """Endpoints without room for a request of this size."""
        if not self._bounded:
            return self.full
        lacking = {
            name
            for name in self._bounded
            if self._seats[name].window.why_not(self._seats[name].held, need) is not None
        }
        return self.full | lacking

    def take(self, endpoint: Endpoint, need: Held) -> Place:
        """A place at `endpoint`, whether there is room or not: that is for admission to say."""
        seats = self._seats.get(endpoint.name)
        if seats is None:
            seats = self._open(endpoint)
        held = seats.held
        seats.held = Held(
            held.requests + need.requests,
            held.kv_tokens + need.kv_tokens,
            held.prefill_tokens + need.prefill_tokens,
        )
        self._mark(endpoint.name, seats)
        return Place(endpoint, need, seats.held.requests)

    def leave(self, place: Place) -> None:
        """Give a place back; exactly once."""
        name = place.endpoint.name
        seats, need = self._seats[name], place.need
        held = seats.held
        seats.held = Held(
            held.requests - need.requests,
            held.kv_tokens - need.kv_tokens,
            held.prefill_tokens - need.prefill_tokens,
        )
        self._mark(name, seats)

    def learn(self, place: Place, ttft_s: float, idle_ttft_s: float) -> None:
        """The first token of a request came: what the window's size follows."""
        seats = self._seats[place.endpoint.name]
        seats.window.learn(ttft_s, idle_ttft_s, place.requests)
        self._mark(place.endpoint.name, seats)

    def requests(self, endpoint: str) -> int:
        """Places taken at an endpoint."""
        seats = self._seats.get(endpoint)
        return 0 if seats is None else seats.held.requests

    def limits(self) -> Mapping[str, int]:
        """Requests that every endpoint's window takes at present, for metrics and the admin API."""
        return {name: seats.window.limit for name, seats in self._seats.items()}

    def lease_slots(self, endpoint: str, slots: int | None) -> None:
        """Use only `slots` of an endpoint, the others being used by other processes; None: all it has."""
        if slots is None:
            self._slots.pop(endpoint, None)
        else:
            self._slots[endpoint] = slots

    def retain(self, endpoints: Iterable[Endpoint]) -> None:
        """Take over new endpoints and changed bounds; forget endpoints that are gone and not in use."""
        known = {endpoint.name: endpoint for endpoint in endpoints}
        for name in [name for name in self._seats if name not in known]:
            if self._seats[name].held.requests == 0:
                del self._seats[name]
                self.full.discard(name)
                self._bounded.discard(name)
                self._slots.pop(name, None)
        for name, endpoint in known.items():
            seats = self._seats.get(name)
            if seats is None:
                self._open(endpoint)
            else:
                knobs = self._knobs(endpoint.profile)
                limits = self._limits(endpoint)
                seats.window = seats.window.resized(limits, knobs.window, knobs.window_tolerance)
                self._mark(name, seats)

    def _open(self, endpoint: Endpoint) -> _Seats:
        knobs = self._knobs(endpoint.profile)
        seats = _Seats(Window(self._limits(endpoint), knobs.window, knobs.window_tolerance))
        self._seats[endpoint.name] = seats
        self._mark(endpoint.name, seats)
        return seats

    def _limits(self, endpoint: Endpoint) -> Limits:
        slots = self._slots.get(endpoint.name, endpoint.max_concurrency)
        return Limits(slots, _stated(endpoint.server_schema, "kv_tokens"))

    def _mark(self, name: str, seats: _Seats) -> None:
        if seats.held.requests >= seats.window.limit:
            self.full.add(name)
        else:
            self.full.discard(name)
        limits = seats.window.limits
        if limits.kv_tokens is not None or limits.prefill_tokens is not None:
            self._bounded.add(name)
        else:
            self._bounded.discard(name)


def _stated(schema: Mapping[str, Any], field: str) -> int | None:
    value = schema.get(field)
    return value if isinstance(value, int) and value > 0 else None
