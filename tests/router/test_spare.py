"""Spare capacity: a share of what interactive requests leave, divided among the workers, never more."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.ledger import Charge, Ledger
from router.spare import Report, SpareCapacity, quota

FAR_S = 1e12


@given(
    slots=st.integers(1, 300),
    interactive=st.integers(0, 400),
    share=st.floats(0.01, 1),
    workers=st.integers(1, 20),
)
def test_all_workers_together_stay_within_the_share(
    slots: int, interactive: int, share: float, workers: int
) -> None:
    parts = [quota(slots, interactive, share, rank, workers) for rank in range(workers)]
    assert sum(parts) == int(max(0, slots - interactive) * share)
    assert max(parts) - min(parts) <= 1


def endpoint(name: str, profile: str = "balanced", slots: int = 8, **changes: object) -> Endpoint:
    fields = {"lane": "openai-http", "target": "m", "http": "http://a:1", "state": "ready"}
    return Endpoint.model_validate(
        {"name": name, "deployment": "d", "model": "m", "profile": profile, "max_concurrency": slots}
        | fields
        | changes
    )


class Known:
    """A worker's view that a test can change."""

    def __init__(self, *endpoints: Endpoint, share: float = 0.5) -> None:
        self.ledger = Ledger()
        self.waiting: Counter[str] = Counter()
        self.snapshot = Snapshot.of(1, endpoints)
        self.spare = SpareCapacity(self.ledger, self.waiting, lambda: self.snapshot, share)
        self.hear()

    def hear(self, *others: Report, joined_ms: int = -1, until_s: float = FAR_S) -> None:
        """News of the other workers, whose names come before this one's."""
        reports = {f"a{number}": report for number, report in enumerate(others)}
        self.spare.learn("w", {"w": self.spare.report(), **reports}, joined_ms, until_s)


async def test_without_news_of_the_others_nothing_is_spare() -> None:
    known = Known(endpoint("a"))
    assert known.spare.room("m") == 4
    known.hear(until_s=0.0)
    assert known.spare.room("m") == 0
    for as_of_ms, room in ((4, 0), (5, 0), (6, 1)):
        known.hear(Report({}, {}, [], 9), Report({}, {}, [], as_of_ms), joined_ms=5)
        assert known.spare.room("m") == room, "until all have heard of this one"


async def test_what_interactive_requests_hold_is_not_spare_on_any_worker() -> None:
    known = Known(endpoint("a"))
    with known.ledger.lease("a", Charge(10)), known.ledger.lease("a", Charge(10)):
        assert known.spare.room("m") == 3
        known.hear(Report({"a": 4}, {}, []))
        assert known.spare.room("m") == 0  # one row is left, and it is the other worker's
        assert known.spare.report() == ({"a": 2}, {}, [], 0)


async def test_who_joins_takes_its_part_as_the_others_let_go_of_theirs() -> None:
    known = Known(endpoint("a"))
    for held, room in ((4, 0), (3, 1), (2, 2), (0, 2)):
        known.hear(Report({}, {"a": held}, []))
        assert known.spare.room("m") == room


async def test_rows_take_from_the_room_and_are_not_reported_as_load() -> None:
    known = Known(endpoint("a"))
    with known.ledger.spare_lease("a", Charge(10)):
        assert (known.spare.room("m"), known.spare.held("m")) == (3, 1)
        assert known.spare.report() == ({}, {"a": 1}, [], 0)
    assert (known.spare.room("m"), known.spare.held("m")) == (4, 0)


@pytest.mark.parametrize("here", [True, False])
async def test_nothing_is_spare_while_requests_wait_for_the_model(here: bool) -> None:
    known = Known(endpoint("a"))
    if here:
        known.waiting["m"] += 1
        assert known.spare.report() == ({}, {}, ["m"], 0)
    else:
        known.hear(Report({}, {}, ["m"]))
    assert known.spare.room("m") == 0
    assert not known.spare.admits(known.snapshot.endpoints["m"][0])


async def test_rows_stay_with_the_profile_that_is_there_for_them() -> None:
    latency, throughput = endpoint("fast", "latency"), endpoint("many", "throughput", slots=2)
    known = Known(latency, throughput)
    assert (known.spare.room("m"), known.spare.admits(latency)) == (1, False)
    assert Known(latency).spare.admits(latency), "without one, its stand-ins serve"
    assert Known(endpoint("a", state="draining")).spare.room("m") == 0
