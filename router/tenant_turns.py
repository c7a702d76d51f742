"""Turns: deficit round robin over the tenants of one priority, with bursts. Pure.

Tenants that wait take turns in a ring. A round adds `quantum * weight` tokens to a tenant's deficit, and its
first request goes once the deficit covers the request's cost. Rounds that would let nobody go are skipped by
arithmetic, so that a small quantum costs no time.

A tenant that takes less than its turns saves up the rest, and begins to wait with a burst of it. Requests
that a deficit covers already go before all others: tenants within their turns share what they leave each
other, and one that always waits gets its turns and what nobody else wants. They go as they came, after those
of tenants that have less than half a burst to spare for what they have waiting, of whom the one with the
least goes first. A burst that runs out a few requests too early costs far more than they do: from then on the
tenant has no more than a flood beside it, and if it asks for as much, what it has waiting stays for minutes.
One whose burst is too small already comes after all these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, Literal, TypeVar

Answer = Literal["go", "pass", "stop"]
"""Whether a request may go: it does; another one may go before it; nobody else may."""

_FEWEST_REMOVED = 64
"""Entries that do not count any more, carried along before a heap is built anew without them."""

PRESSED = -3
"""In place of a round: the deficit covers all that the tenant has waiting, with little to spare."""
EASY = -2
"""The same, with much."""
COVERED = -1
"""The same: it covers the next request, not all."""
_PRESSED_SHARE = 0.5
"""Of a burst, below which what is to spare is little."""

T = TypeVar("T")


class Ticket(Generic[T]):
    """One request in the queue, and its charge until it is settled."""

    __slots__ = ("cost", "deadline_s", "entered_s", "flow", "load", "queued", "tenant", "tokens")

    def __init__(
        self,
        load: T,
        tenant: str,
        cost: float,
        tokens: int,
        entered_s: float,
        deadline_s: float,
        flow: Flow[T] | None = None,
    ) -> None:
        self.load = load
        """What the caller wants back."""
        self.tenant = tenant
        self.cost = cost
        """Weighted tokens that it was charged, or will be."""
        self.tokens = tokens
        self.entered_s = entered_s
        self.deadline_s = deadline_s
        self.queued = True
        self.flow = flow


class Flow(Generic[T]):
    """What one tenant has waiting under one priority, and its place in the ring."""

    __slots__ = (
        "cost",
        "count",
        "deficit",
        "heap",
        "is_ahead",
        "is_seated",
        "name",
        "place",
        "removed",
        "ring",
        "round",
        "saved",
        "seat",
        "tokens",
        "under_way",
        "weight",
    )

    def __init__(self, name: str, ring: Ring[T]) -> None:
        self.name = name
        self.ring = ring
        self.heap: list[tuple[float, int, Ticket[T]]] = []
        self.count = 0
        self.removed = 0
        self.tokens = 0
        self.cost = 0.0
        """Of all its requests that wait."""
        self.under_way = 0
        """Requests that went and are not settled."""
        self.weight = 1.0
        self.deficit = 0.0
        """Tokens that it may send now, in turns or before them."""
        self.saved = 0.0
        """Tokens beside these, of turns that it did not take: for the next times when it begins to wait."""
        self.is_ahead = False
        """When its last request came it had far more under way than others: its burst comes after theirs."""
        self.round = 0
        """The round whose quantum `deficit` includes."""
        self.seat = 0
        """Its place within a round."""
        self.place: tuple[int, float] = (0, 0)
        """The round in which its first request may go, and where in that round."""
        self.is_seated = False
        """The ring's heap has it at this place."""

    def first(self) -> Ticket[T]:
        """The next of its requests; those that were removed are dropped on the way."""
        while not self.heap[0][2].queued:
            heappop(self.heap)
            self.removed -= 1
        return self.heap[0][2]

    def push(self, key: float, number: int, ticket: Ticket[T]) -> None:
        heappush(self.heap, (key, number, ticket))
        self.count += 1
        self.tokens += ticket.tokens
        self.cost += ticket.cost

    def pop(self) -> Ticket[T]:
        ticket = self.first()
        heappop(self.heap)
        self._left(ticket)
        return ticket

    def last(self) -> Ticket[T]:
        """One of those that go last."""
        return next(ticket for _, _, ticket in reversed(self.heap) if ticket.queued)

    def remove(self, ticket: Ticket[T]) -> None:
        """One of its requests is not queued any more."""
        self._left(ticket)
        self.removed += 1
        if self.removed > max(_FEWEST_REMOVED, self.count):
            self.heap = sorted(entry for entry in self.heap if entry[2].queued)
            self.removed = 0

    def _left(self, ticket: Ticket[T]) -> None:
        self.count -= 1
        self.tokens -= ticket.tokens
        self.cost = self.cost - ticket.cost if self.count else 0.0


class Ring(Generic[T]):
    """The flows of one priority, by the turn in which each may go."""

    __slots__ = (
        "burst",
        "flows",
        "heap",
        "idle",
        "owed",
        "quantum",
        "reserved",
        "round",
        "savings",
        "seats",
        "waiting",
    )

    def __init__(self, quantum: float, burst: float, savings: float, reserved: float) -> None:
        self.quantum = quantum
        self.burst = burst
        """Tokens that a tenant of weight 1 may have ahead of the others when it begins to wait."""
        self.savings = savings
        """What it saves up at most, to have them."""
        self.reserved = reserved
        self.owed = 0.0
        """Tokens of its reserved share that went to others while it waited."""
        self.flows: dict[str, Flow[T]] = {}
        self.idle: dict[str, Flow[T]] = {}
        """Those of `flows` with nothing waiting or under way, that have not saved up `savings` yet."""
        self.heap: list[tuple[tuple[int, float], str]] = []
        self.round = 0
        self.seats = 0
        self.waiting = 0

    def join(self, flow: Flow[T]) -> None:
        """A flow begins to wait: with what it saved up while it took less than its turns, `burst` at most."""
        self.idle.pop(flow.name, None)
        own = self._own(flow)
        flow.deficit = min(own, self.burst * flow.weight)
        flow.saved = own - flow.deficit
        flow.round = max(flow.round, self.round - 1)
        self.seats += 1
        flow.seat = self.seats
        flow.is_seated = False
        self.seat(flow)

    def seat(self, flow: Flow[T]) -> None:
        """Put a flow where its first request's cost puts it."""
        place = self._place(flow)
        if not flow.is_seated or place != flow.place:
            self._sit(flow, place)

    def _place(self, flow: Flow[T]) -> tuple[int, float]:
        """The round that covers its first request.

        Where the deficit does already: first those of which it covers all with little to spare, the one with
        the least; then those of which it covers all, as they came; then the one of which it covers all but
        the least.
        """
        spare = (flow.deficit - flow.cost) / flow.weight
        if spare >= 0 and not flow.is_ahead:
            if spare < _PRESSED_SHARE * self.burst:
                return PRESSED, spare
            return EASY, flow.heap[0][1]
        lacking = flow.first().cost - flow.deficit
        rounds = math.ceil(lacking / (self.quantum * flow.weight) - 1e-9)
        if rounds <= 0:
            return COVERED, abs(spare)
        return flow.round + rounds, flow.seat

    def catch_up(self, flow: Flow[T], round_: int) -> None:
        """Add the quanta of the rounds up to `round_`."""
        flow.deficit += max(0, round_ - flow.round) * self.quantum * flow.weight
        flow.round = max(flow.round, round_)

    def take(self, may_go: Callable[[T], Answer]) -> tuple[Ticket[T] | None, Answer]:
        """The first request in turn that may go; each flow is asked once."""
        passed: list[Flow[T]] = []
        found: Ticket[T] | None = None
        answer: Answer = "pass"
        while self.heap:
            place, name = heappop(self.heap)
            flow = self.flows.get(name)
            if flow is None or not flow.is_seated or place != flow.place or flow.count == 0:
                continue  # it has moved on since
            flow.is_seated = False
            ticket = flow.first()
            answer = may_go(ticket.load)
            if answer == "go":
                found = ticket
                self._go(flow, place)
                break
            passed.append(flow)
            if answer == "stop":
                break
        for flow in passed:
            if found is not None:  # what it could not use is not saved up
                most = max(flow.first().cost, flow.deficit)
                self.catch_up(flow, self.round)
                flow.deficit = min(flow.deficit, most)
            self._sit(flow, self._place(flow))
        return found, answer

    def _sit(self, flow: Flow[T], place: tuple[int, float]) -> None:
        flow.place = place
        flow.is_seated = True
        heappush(self.heap, (place, flow.name))
        if len(self.heap) > max(_FEWEST_REMOVED, 4 * len(self.flows)):
            seated = (one for one in self.flows.values() if one.is_seated and one.count)
            self.heap = sorted((one.place, one.name) for one in seated)

    def _go(self, flow: Flow[T], place: tuple[int, float]) -> None:
        self.catch_up(flow, place[0])
        self.round = max(self.round, place[0])
        ticket = flow.pop()
        ticket.queued = False
        flow.deficit -= ticket.cost
        flow.under_way += 1
        self.waiting -= 1
        if flow.count:
            self.seat(flow)

    @property
    def is_due(self) -> bool:
        """Its reserved share comes before requests of higher rank."""
        return self.owed >= self.quantum

    def idle_if_empty(self) -> None:
        """Without work there is nothing to save up; what it had ahead of its share stands."""
        if self.waiting == 0:
            self.owed = min(self.owed, 0.0)
            while self.idle:  # all have what they want: nobody is ahead of anybody
                self._forget(next(iter(self.idle.values())))

    def forget_if_idle(self, flow: Flow[T]) -> None:
        """Drop what a flow that begins anew would have as well."""
        if flow.count or flow.under_way:
            return
        if self.waiting == 0:
            self._forget(flow)
            return
        self.idle[flow.name] = flow
        while self.idle:
            oldest = next(iter(self.idle.values()))
            if self._own(oldest) < self.savings * oldest.weight:
                return
            self._forget(oldest)

    def _own(self, flow: Flow[T]) -> float:
        """All that it has when it does not wait: the rounds since then included."""
        rounds = max(0, self.round - 1 - flow.round)
        own = flow.deficit + flow.saved + rounds * self.quantum * flow.weight
        return min(own, self.savings * flow.weight)

    def _forget(self, flow: Flow[T]) -> None:
        self.idle.pop(flow.name, None)
        del self.flows[flow.name]
