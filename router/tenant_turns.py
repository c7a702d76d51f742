"""Turns: deficit round robin over the tenants of one priority. Pure.

Tenants that wait take turns in a ring. A round adds `quantum * weight` tokens to a tenant's deficit, and its
first request goes once the deficit covers the request's cost. Rounds that would let nobody go are skipped by
arithmetic, so that a small quantum costs no time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, Literal, TypeVar

Answer = Literal["go", "pass", "stop"]
"""Whether a request may go: it does; another one may go before it; nobody else may."""

_FEWEST_REMOVED = 64
"""Removed requests that are carried along before a heap is built anew without them."""

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
        "count",
        "deficit",
        "heap",
        "is_seated",
        "name",
        "place",
        "removed",
        "ring",
        "round",
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
        """Of all its requests that wait."""
        self.under_way = 0
        """Requests that went and are not settled."""
        self.weight = 1.0
        self.deficit = 0.0
        self.round = 0
        """The round whose quantum `deficit` includes."""
        self.place: tuple[int, int] = (0, 0)
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

    def pop(self) -> Ticket[T]:
        ticket = self.first()
        heappop(self.heap)
        self.count -= 1
        self.tokens -= ticket.tokens
        return ticket

    def last(self) -> Ticket[T]:
        """One of those that go last."""
        return next(ticket for _, _, ticket in reversed(self.heap) if ticket.queued)

    def remove(self, ticket: Ticket[T]) -> None:
        """One of its requests is not queued any more."""
        self.count -= 1
        self.tokens -= ticket.tokens
        self.removed += 1
        if self.removed > max(_FEWEST_REMOVED, self.count):
            self.heap = sorted(entry for entry in self.heap if entry[2].queued)
            self.removed = 0


class Ring(Generic[T]):
    """The flows of one priority, by the turn in which each may go."""

    __slots__ = ("flows", "heap", "owed", "quantum", "reserved", "round", "seats", "waiting")

    def __init__(self, quantum: float, reserved: float) -> None:
        self.quantum = quantum
        self.reserved = reserved
        self.owed = 0.0
        """Tokens of its reserved share that went to others while it waited."""
        self.flows: dict[str, Flow[T]] = {}
        self.heap: list[tuple[tuple[int, int], str]] = []
        self.round = 0
        self.seats = 0
        self.waiting = 0

    def join(self, flow: Flow[T]) -> None:
        """A flow begins to wait: no credit for the time without work, and debts are paid off meanwhile."""
        rounds = max(0, self.round - 1 - flow.round)
        flow.deficit = min(0.0, flow.deficit + rounds * self.quantum * flow.weight)
        flow.round = max(flow.round, self.round - 1)
        self.seats += 1
        flow.place = (0, self.seats)
        flow.is_seated = False
        self.seat(flow)

    def seat(self, flow: Flow[T]) -> None:
        """Put a flow where its first request's cost puts it."""
        lacking = flow.first().cost - flow.deficit
        rounds = max(0, math.ceil(lacking / (self.quantum * flow.weight) - 1e-9))
        place = flow.round + rounds, flow.place[1]
        if not flow.is_seated or place != flow.place:
            self._sit(flow, place)

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
                self.catch_up(flow, self.round)
                flow.deficit = min(flow.deficit, flow.first().cost)
            self._sit(flow, (max(flow.place[0], flow.round), flow.place[1]))
        return found, answer

    def _sit(self, flow: Flow[T], place: tuple[int, int]) -> None:
        flow.place = place
        flow.is_seated = True
        heappush(self.heap, (place, flow.name))

    def _go(self, flow: Flow[T], place: tuple[int, int]) -> None:
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

    def forget_if_idle(self, flow: Flow[T]) -> None:
        if flow.count == 0 and flow.under_way == 0:
            self.flows.pop(flow.name, None)
