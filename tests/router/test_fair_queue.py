"""The fair queue: turns of tenants, priorities, orders and removals."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.tenants import Priority
from router.fair_queue import BURST_TOKENS, QUANTUM_TOKENS, SAVINGS_TOKENS, FairQueue
from router.tenant_turns import Answer, Ticket

LARGEST = 33_000
Item = tuple[str, float]


def add(
    queue: FairQueue[Item],
    tenant: str,
    cost: float,
    *,
    weight: float = 1.0,
    priority: Priority = "standard",
    now_s: float = 0.0,
    deadline_s: float = math.inf,
    is_ahead: bool = False,
) -> Ticket[Item]:
    return queue.add(
        (tenant, cost),
        tenant=tenant,
        weight=weight,
        priority=priority,
        cost=cost,
        tokens=int(cost),
        now_s=now_s,
        deadline_s=deadline_s,
        is_ahead=is_ahead,
    )


def go(_: Item) -> Answer:
    return "go"


def in_turns() -> FairQueue[Item]:
    """A queue in which nothing is saved up."""
    return FairQueue(burst_tokens=0, savings_tokens=0)


def take(queue: FairQueue[Item]) -> Ticket[Item]:
    ticket = queue.take(go)
    assert ticket is not None
    return ticket


costs = st.one_of(st.sampled_from([1.0, 500.0, float(LARGEST)]), st.floats(1, LARGEST))
weights = st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=2, max_size=5)
steps = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 4), costs)), max_size=150)


class Service:
    """What every tenant got per weight, and how far any two that wait have drifted apart."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = weights
        self.got = [0.0] * len(weights)
        self.waiting = [0] * len(weights)
        self.since: dict[tuple[int, int], float] = {}

    def added(self, tenant: int) -> None:
        self.waiting[tenant] += 1
        if self.waiting[tenant] == 1:
            for pair in combinations(range(len(self.got)), 2):
                if tenant in pair:
                    self.since[pair] = self.got[pair[0]] - self.got[pair[1]]

    def served(self, tenant: int, cost: float) -> None:
        self.got[tenant] += cost / self.weights[tenant]
        self.waiting[tenant] -= 1

    def gaps(self) -> list[float]:
        return [
            abs(self.got[a] - self.got[b] - since)
            for (a, b), since in self.since.items()
            if self.waiting[a] and self.waiting[b]
        ]


@given(weights, st.lists(st.lists(costs, min_size=1, max_size=30), min_size=5, max_size=5))
@settings(deadline=None)
def test_tenants_that_began_together_stay_within_burst_and_largest(
    weights: list[float], backlogs: list[list[float]]
) -> None:
    """At every moment, as long as both wait."""
    queue: FairQueue[Item] = FairQueue(limit=10**6)
    service = Service(weights)
    bound = BURST_TOKENS + QUANTUM_TOKENS + LARGEST / min(weights)
    for tenant, weight in enumerate(weights):
        for cost in backlogs[tenant]:
            add(queue, str(tenant), cost, weight=weight)
            service.added(tenant)
    while len(queue):
        name, cost = take(queue).load
        service.served(int(name), cost)
        assert max(service.gaps(), default=0.0) <= bound + 1e-6


@given(weights, steps)
@settings(deadline=None, max_examples=200)
def test_whenever_two_began_to_wait_the_gap_is_bounded(
    weights: list[float], steps: list[tuple[int, float] | None]
) -> None:
    """Tenants come and go, some are removed, and one may have been ahead when another came."""
    queue: FairQueue[Item] = FairQueue(limit=10**6)
    service = Service(weights)
    bound = BURST_TOKENS + QUANTUM_TOKENS + 2 * LARGEST / min(weights)
    for step in steps:
        if step is not None:
            tenant, cost = step[0] % len(weights), step[1]
            add(queue, str(tenant), cost, weight=weights[tenant])
            service.added(tenant)
        elif len(queue):
            ticket = take(queue)
            name, cost = ticket.load
            service.served(int(name), cost)
            queue.settle(ticket, cost)
        assert max(service.gaps(), default=0.0) <= bound + 1e-6


@given(st.lists(st.floats(0.2, 5.0), min_size=60, max_size=60))
@settings(deadline=None)
def test_true_costs_count_once_they_are_known(errors: list[float]) -> None:
    """Estimates that are wrong for one tenant are made up for: the bound holds for what was really used."""
    queue = in_turns()
    service = Service([1.0, 1.0])
    largest = 1000 * 5.0
    for _ in range(60):
        add(queue, "0", 1000.0)
        add(queue, "1", 1000.0)
        service.added(0)
        service.added(1)
    left = iter(errors)
    for _ in range(60):
        ticket = take(queue)
        tenant = int(ticket.load[0])
        truth = 1000.0 * next(left) if tenant == 0 else 1000.0
        queue.settle(ticket, truth)
        service.served(tenant, truth)
        assert max(service.gaps(), default=0.0) <= QUANTUM_TOKENS + 2 * largest


def test_a_flood_is_shared_by_weight() -> None:
    """Of three tenants with equal requests, the one of weight 2 gets half while all wait."""
    queue = in_turns()
    for _ in range(300):
        add(queue, "flood", 1000.0)
    for _ in range(80):
        add(queue, "double", 1000.0, weight=2.0)
        add(queue, "single", 1000.0)
    first = [take(queue).load[0] for _ in range(80)]
    assert (first.count("double"), first.count("single"), first.count("flood")) == (40, 20, 20)


def test_who_took_less_than_its_turns_has_a_burst() -> None:
    """A tenant that comes late goes first, as far as the burst; from then on it takes turns.

    A flood has a burst as well, but it comes after those that are nearer to being enough.
    """
    queue: FairQueue[Item] = FairQueue()
    for _ in range(300):
        add(queue, "early", 1000.0)
    for _ in range(100):
        add(queue, "late", 1000.0)
    first = [take(queue).load[0] for _ in range(2 * (BURST_TOKENS // 1000) + 20)]
    burst = first.index("early")
    assert burst == pytest.approx(BURST_TOKENS / 1000, abs=1)
    assert set(first[burst : 2 * burst]) == {"early"}
    assert first[2 * burst :].count("late") == pytest.approx(10, abs=2)


def test_those_within_their_bursts_go_as_they_came() -> None:
    """As long as they have half a burst to spare, whichever of them has more."""
    queue: FairQueue[Item] = FairQueue()
    for _ in range(200):
        add(queue, "flood", 1000.0)
    for tenant in ("a", "b", "a", "a", "b", "c"):
        add(queue, tenant, 2000.0)
    assert [take(queue).load[0] for _ in range(7)] == ["a", "b", "a", "a", "b", "c", "flood"]


def test_those_with_little_to_spare_go_first_and_the_one_with_least_before_all() -> None:
    """Until it has nothing waiting, and a whole burst again when it comes next; then the one after it."""
    queue: FairQueue[Item] = FairQueue(burst_tokens=10_000, savings_tokens=10_000)
    for tenant, requests in (("flood", 30), ("easy", 2), ("little", 6), ("least", 8)):
        for _ in range(requests):
            add(queue, tenant, 1000.0)
    first = [take(queue).load[0] for _ in range(17)]
    assert first == ["least"] * 8 + ["little"] * 6 + ["easy"] * 2 + ["flood"]


def test_whose_burst_is_too_small_comes_after_those_it_suffices_for() -> None:
    """And before all turns; of several, the one that lacks least goes first."""
    queue: FairQueue[Item] = FairQueue(burst_tokens=4000, savings_tokens=4000)
    for tenant, requests in (("flood", 20), ("over", 6), ("within", 3)):
        for _ in range(requests):
            add(queue, tenant, 1000.0)
    first = [take(queue).load[0] for _ in range(11)]
    assert first == ["within"] * 3 + ["over"] * 4 + ["flood"] * 4


def test_who_has_far_more_under_way_has_its_burst_after_the_others() -> None:
    """Only as long as it has: the next request says so anew."""
    queue: FairQueue[Item] = FairQueue()
    for _ in range(3):
        add(queue, "flood", 1000.0, is_ahead=True)
        add(queue, "other", 500.0)
    assert [take(queue).load[0] for _ in range(4)] == ["other"] * 3 + ["flood"]
    add(queue, "other", 500.0)
    add(queue, "flood", 1000.0)
    assert take(queue).load[0] == "flood"


def test_whoever_comes_and_goes_gets_its_turns_and_savings_in_the_long_run() -> None:
    """A tenant that never has much waiting, but always something soon, does not shut another out."""
    queue: FairQueue[Item] = FairQueue(limit=10**6)
    rounds = 2 * SAVINGS_TOKENS // 8000
    for _ in range(rounds * 8):
        add(queue, "waits", 1000.0)
    got = {"waits": 0.0, "comes": 0.0}
    for _ in range(rounds):
        last = [add(queue, "comes", 1000.0) for _ in range(8)][-1]
        while last.queued:
            ticket = take(queue)
            got[ticket.tenant] += ticket.cost
            queue.settle(ticket, ticket.cost)
    assert got["comes"] - got["waits"] <= SAVINGS_TOKENS + BURST_TOKENS
    assert got["comes"] > got["waits"]


@pytest.mark.parametrize(
    ("order", "expected"), [("fcfs", [3.0, 1.0, 2.0]), ("edf", [1.0, 2.0, 3.0]), ("wspt", [1.0, 2.0, 3.0])]
)
def test_the_order_within_a_tenant(order: str, expected: list[float]) -> None:
    """First come; earliest deadline; least work."""
    queue: FairQueue[Item] = FairQueue(order=order)  # type: ignore[arg-type]
    for now_s, cost in enumerate([3.0, 1.0, 2.0]):
        add(queue, "t", cost, now_s=now_s, deadline_s=10 * cost)
    assert [take(queue).load[1] for _ in range(3)] == expected


def test_higher_priority_goes_first_but_leaves_the_reserved_share() -> None:
    """`standard` keeps a fifth and `sheddable` a twentieth while `critical` has more than enough."""
    queue: FairQueue[Item] = FairQueue(limit=10**6)
    for priority in ("sheddable", "standard", "critical"):
        for _ in range(1000):
            add(queue, priority, 2000.0, priority=priority)
    first = [take(queue).load[0] for _ in range(1000)]
    assert first.index("critical") == 0
    assert first.count("standard") == pytest.approx(200, abs=2)
    assert first.count("sheddable") == pytest.approx(50, abs=2)


def test_what_comes_back_goes_before_everything_new() -> None:
    """A retry waits for room, not for turns."""
    queue: FairQueue[Item] = FairQueue(limit=1)
    add(queue, "t", 10.0, priority="critical")
    assert queue.is_full
    queue.add_back(("again", 5.0), 5, now_s=1.0)
    assert take(queue).load[0] == "again"
    assert take(queue).load[0] == "t"


@given(st.lists(st.tuples(st.integers(0, 3), costs, st.booleans()), max_size=200))
@settings(deadline=None)
def test_removed_requests_are_gone_and_all_others_go_once(items: list[tuple[int, float, bool]]) -> None:
    """Whatever is removed, in whatever order."""
    queue: FairQueue[Item] = FairQueue(order="wspt", limit=10**6)
    tickets = [(add(queue, str(tenant), cost), stays) for tenant, cost, stays in items]
    for ticket, stays in tickets:
        if not stays:
            queue.remove(ticket)
            queue.remove(ticket)
    left = [ticket for ticket, stays in tickets if stays]
    assert len(queue) == len(left)
    taken = [take(queue) for _ in left]
    assert set(taken) == set(left)
    assert (len(queue), queue.tokens) == (0, 0)
    assert queue.take(go) is None


def test_who_may_not_go_is_passed_and_keeps_its_turn() -> None:
    """Another tenant goes meanwhile; what it could not use is not saved up for later."""
    queue = in_turns()
    for _ in range(20):
        add(queue, "odd", 1000.0)
        add(queue, "plain", 1000.0)

    def only_plain(item: Item) -> Answer:
        return "go" if item[0] == "plain" else "pass"

    for _ in range(10):
        ticket = queue.take(only_plain)
        assert ticket is not None
        assert ticket.load[0] == "plain"
    first = [take(queue).load[0] for _ in range(10)]
    assert 5 <= first.count("odd") <= 6


def test_who_must_be_next_holds_the_others_back() -> None:
    """`stop`: nothing smaller slips past a large request for ever."""
    queue = in_turns()
    add(queue, "large", 500.0)
    add(queue, "small", 600.0)
    assert queue.take(lambda item: "stop" if item[0] == "large" else "go") is None
    assert take(queue).load[0] == "large"
