"""Who waits for whom: values in, a lead out."""

from __future__ import annotations

import pytest

from router.block_hashes import block_hashes
from router.cohorts import Cohorts, Lead, length_class
from router.view import Ask

SIZE = 64
HEAD = list(range(1000))
WAIT_S = 0.1


def ask(ids: list[int], tenant: str = "") -> Ask:
    return Ask(len(ids), 10, block_hashes(ids, SIZE), tenant, block_tokens=SIZE)


def begun(
    cohorts: Cohorts,
    ids: list[int],
    endpoint: str = "a",
    cached: int = 0,
    due_s: float = 0.05,
    now_s: float = 0.0,
    tenant: str = "",
) -> Lead | None:
    return cohorts.begins("m", endpoint, ask(ids, tenant), cached, due_s, now_s, WAIT_S, 512)


def test_a_request_waits_for_one_that_computes_what_it_begins_with() -> None:
    """Until that is over, which is told once; with what it shares, not with what is alike elsewhere."""
    cohorts = Cohorts()
    assert cohorts.lead("m", ask(HEAD), (), 0.0) is None
    lead = begun(cohorts, [*HEAD, *[1] * 100])
    assert lead is not None
    assert cohorts.lead("m", ask([*HEAD, *[2] * 300]), [("a", 900), ("b", 0)], 0.01) is lead
    for other in (ask(HEAD[:500]), ask([9, *HEAD]), ask(HEAD, "t"), ask(HEAD[:100] + [3] * 900), ask([])):
        assert cohorts.lead("m", other, (), 0.01) is None
    assert cohorts.lead("other", ask(HEAD), (), 0.01) is None
    assert cohorts.lead("m", ask(HEAD), (), WAIT_S) is None
    told: list[int] = []
    lead.when_over.append(lambda: told.append(1))
    cohorts.over(lead)
    cohorts.over(lead)
    assert told == [1]
    assert not cohorts
    assert cohorts.lead("m", ask(HEAD), (), 0.01) is None


def test_nobody_waits_for_what_is_there_already() -> None:
    """At an endpoint that is not just computing it; or in the lead's own cache, when it was sent."""
    cohorts = Cohorts()
    lead = begun(cohorts, HEAD)
    assert cohorts.lead("m", ask(HEAD), [("a", 960), ("b", 512)], 0.0) is lead
    assert cohorts.lead("m", ask(HEAD), [("a", 960), ("b", 960)], 0.0) is None
    cached = Cohorts()
    longer = HEAD + list(range(5000, 6000))
    lead = begun(cached, longer, cached=960)
    assert lead is not None
    assert cached.lead("m", ask([*HEAD, *[4] * 1000]), (), 0.0) is None
    assert cached.lead("m", ask(longer), (), 0.0) is lead


@pytest.mark.parametrize(("tokens", "cached", "due_s"), [(500, 0, 0.05), (1000, 600, 0.05), (1000, 0, 0.2)])
def test_a_lead_computes_enough_and_in_time(tokens: int, cached: int, due_s: float) -> None:
    """Short prompts save little; for long ones others would wait in vain."""
    assert begun(Cohorts(), HEAD[:tokens], cached=cached, due_s=due_s) is None
    assert begun(Cohorts(), HEAD) is not None


def test_of_several_the_one_that_shares_most_is_waited_for() -> None:
    cohorts = Cohorts()
    less = begun(cohorts, [*HEAD[:640], *[1] * 400])
    more = begun(cohorts, HEAD, endpoint="b")
    assert cohorts.lead("m", ask(HEAD), (), 0.0) is more
    assert more is not None
    assert less is not None
    cohorts.over(more)
    assert cohorts.lead("m", ask(HEAD), (), 0.0) is less
    cohorts.over(less)
    assert not cohorts


def test_lengths_of_one_class_differ_by_less_than_its_ratio() -> None:
    for cost in (1.0, 3.0, 7.5, 8.0, 1000.0, 1024.0):
        shortest = length_class(cost, 2.0)
        assert shortest <= cost < 2 * shortest
        assert length_class(shortest, 2.0) == shortest
        assert length_class(cost, 1.0) == cost
    assert length_class(0.0, 2.0) == 0.0


def test_the_place_of_a_lead_that_is_gone_is_taken_by_one_that_waits() -> None:
    """Told once; without anybody who waits, there is no place to take."""
    cohorts = Cohorts()
    lead = begun(cohorts, HEAD)
    assert lead is not None
    told: list[int] = []
    lead.when_over.append(lambda: told.append(1))
    assert cohorts.left(lead)
    assert cohorts.lead("m", ask(HEAD), [("a", 960)], 0.0) is lead
    assert lead.is_left
    cohorts.over(lead)
    assert told == [1]
    assert not cohorts.left(lead)
    alone = begun(cohorts, HEAD)
    assert alone is not None
    assert not cohorts.left(alone)
    assert not cohorts
