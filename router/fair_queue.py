"""FairQueue: whose request goes next, by priority, then tenant, then the profile's order. Pure.

Between tenants it is deficit round robin by tokens and weights (`router.tenant_turns`); cost is charged by
estimate when a request goes and settled by truth when it ends. The service per weight that two tenants of
one priority got since both began to wait differs by at most `burst` + `quantum` + the largest cost per weight
where they began together, and by one such cost more where one was ahead when the other came (property tests).
In the long run a tenant gets no more than its turns and `savings`.

Priorities are strict, except that each keeps a reserved share of what is dispatched while it waits, so that
none starves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar, get_args

from model_registry.knobs import QueueOrder
from model_registry.tenants import Priority
from router.cohorts import length_class
from router.tenant_turns import Answer, Flow, Ring, Ticket

PRIORITIES: tuple[Priority, ...] = get_args(Priority)
RESERVED: Mapping[Priority, float] = MappingProxyType({"critical": 0.0, "standard": 0.2, "sheddable": 0.05})
"""The first of those that wait has all that the others' shares leave."""
QUANTUM_TOKENS = 1024
BURST_TOKENS = 36_864
"""What a tenant of weight 1 may be ahead when it begins to wait. With charges by estimate and a request in
either direction, two tenants stay within 64k tokens of each other."""
SAVINGS_TOKENS = 524_288
"""What it saves up at most, of turns that it does not take: a minute's share, or two minutes'."""

T = TypeVar("T")


class FairQueue(Generic[T]):
    """What waits for one deployment group. `limit` bounds it; requests that come back are always taken."""

    def __init__(
        self,
        order: QueueOrder = "fcfs",
        limit: int = 1024,
        quantum_tokens: float = QUANTUM_TOKENS,
        burst_tokens: float = BURST_TOKENS,
        savings_tokens: float = SAVINGS_TOKENS,
        reserved: Mapping[Priority, float] = RESERVED,
        length_ratio: float = 1.0,
    ) -> None:
        """`length_ratio`: under `wspt`, costs that differ by less than this factor count as one."""
        self.order = order
        self._length_ratio = length_ratio
        self.limit = limit
        self.tokens = 0
        """Tokens of all that waits."""
        self._rings = {
            priority: Ring[T](quantum_tokens, burst_tokens, savings_tokens, reserved[priority])
            for priority in PRIORITIES
        }
        self._back: dict[Ticket[T], None] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._back) + sum(ring.waiting for ring in self._rings.values())

    @property
    def is_full(self) -> bool:
        """No new request may be added."""
        return len(self) >= self.limit

    def add(
        self,
        load: T,
        *,
        tenant: str,
        weight: float,
        priority: Priority,
        cost: float,
        tokens: int,
        now_s: float,
        deadline_s: float = math.inf,
        is_ahead: bool = False,
    ) -> Ticket[T]:
        """Queue a request; the caller has seen that the queue is not full.

        `cost`: weighted tokens to charge its tenant, by estimate.
        `is_ahead`: the tenant has so much under way (`router.under_way`) that its burst comes after those of
        others.
        """
        ring = self._rings[priority]
        flow = ring.flows.get(tenant)
        if flow is None:
            flow = ring.flows[tenant] = Flow(tenant, ring)
            flow.round = ring.round - 1
            flow.saved = ring.savings * weight
        flow.weight = weight
        ticket = Ticket(load, tenant, cost, tokens, now_s, deadline_s, flow)
        key = {"fcfs": now_s, "edf": deadline_s, "wspt": length_class(cost, self._length_ratio)}[self.order]
        self._numbers += 1
        flow.push(key, self._numbers, ticket)
        ring.waiting += 1
        self.tokens += tokens
        flow.is_ahead = is_ahead
        if flow.count == 1:
            ring.join(flow)
        else:
            ring.seat(flow)
        return ticket

    def add_back(self, load: T, tokens: int, now_s: float, deadline_s: float = math.inf) -> Ticket[T]:
        """Queue a request that went before (a retry, a stream that goes on): before new ones; no charge."""
        ticket = Ticket(load, "", 0.0, tokens, now_s, deadline_s)
        self._back[ticket] = None
        self.tokens += tokens
        return ticket

    def remove(self, ticket: Ticket[T]) -> None:
        """A request that waits does not any more (its client left). In O(log n), amortised."""
        if not ticket.queued:
            return
        ticket.queued = False
        self.tokens -= ticket.tokens
        flow = ticket.flow
        if flow is None:
            del self._back[ticket]
            return
        ring = flow.ring
        flow.remove(ticket)
        ring.waiting -= 1
        ring.idle_if_empty()
        if flow.count == 0:
            ring.forget_if_idle(flow)
        else:
            ring.seat(flow)

    def take(self, may_go: Callable[[T], Answer]) -> Ticket[T] | None:
        """Take out the next request that `may_go`; None: none of those at the heads may."""
        for ticket in self._back:
            answer = may_go(ticket.load)
            if answer == "go":
                del self._back[ticket]
                ticket.queued = False
                self.tokens -= ticket.tokens
                return ticket
            if answer == "stop":
                return None
        for ring in self._in_turn():
            found, answer = ring.take(may_go)
            if found is not None:
                self.tokens -= found.tokens
                self._account(ring, found.cost)
                return found
            if answer == "stop":
                return None
        return None

    def ahead_tokens(self, tenant: str, weight: float, priority: Priority) -> float:
        """Tokens that go before a request which `tenant` adds now, if nobody else comes.

        Other tenants go before it only for as long as its own requests wait for their turns.
        """
        total = float(sum(ticket.tokens for ticket in self._back))
        for name in PRIORITIES:
            ring = self._rings[name]
            if name == priority:
                own = ring.flows[tenant].tokens if tenant in ring.flows else 0
                turns = (own + ring.quantum * weight) / weight
                others = (flow for flow in ring.flows.values() if flow.name != tenant)
                return total + own + sum(min(flow.tokens, turns * flow.weight) for flow in others)
            total += sum(flow.tokens for flow in ring.flows.values())
        return total

    def victim(self, tenant: str, weight: float, priority: Priority) -> Ticket[T] | None:
        """Who gives way to a new request of `tenant` in a full queue; None: nobody, it is refused itself.

        A late request of the tenant that has most waiting per weight, in the lowest priority that waits: so
        that no tenant can shut others out by filling the queue.
        """
        for name in reversed(PRIORITIES[PRIORITIES.index(priority) :]):
            ring = self._rings[name]
            if ring.waiting == 0:
                continue
            most = max(ring.flows.values(), key=lambda flow: flow.count / flow.weight)
            own = ring.flows.get(tenant)
            mine = ((own.count if own else 0) + 1) / weight
            if name != priority or most.count / most.weight > mine:
                return most.last()
            return None
        return None

    def settle(self, ticket: Ticket[T], cost: float) -> None:
        """A request that went has ended: charge what it really cost instead of the estimate."""
        flow = ticket.flow
        if flow is None:
            return
        flow.deficit += ticket.cost - cost
        flow.under_way -= 1
        if flow.count:
            flow.ring.seat(flow)
        else:
            flow.ring.forget_if_idle(flow)

    def _in_turn(self) -> list[Ring[T]]:
        """Priorities that wait: first those whose reserved share is due, then by rank."""
        waiting = [ring for ring in self._rings.values() if ring.waiting]
        if len(waiting) > 1:
            waiting.sort(key=lambda ring: -ring.owed if ring.is_due else 0.0)
        return waiting

    def _account(self, ring: Ring[T], cost: float) -> None:
        was_due = ring.is_due
        for one in self._rings.values():
            if one.waiting or one is ring or one.owed < 0:
                one.owed += one.reserved * cost
        # What it gets because nobody of higher rank waits does not count against its share.
        ring.owed = ring.owed - cost if was_due else max(ring.owed - cost, min(ring.owed, 0.0))
        ring.idle_if_empty()
