"""Spare capacity: a share of what interactive requests leave, divided among the workers, never more."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.ledger import Ledger
from router.spare import SpareCapacity, quota

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
        self.spare.learn("w", {"w": ({}, [])}, FAR_S)


async def test_without_news_of_the_others_nothing_is_spare() -> None:
    known = Known(endpoint("a"))
    assert known.spare.room("m") == 4
    known.spare.learn("w", {}, 0.0)
    assert known.spare.room("m") == 0


async def test_what_interactive_requests_hold_is_not_spare_on_any_worker() -> None:
    known = Known(endpoint("a"))
    with known.ledger.lease("a", 10), known.ledger.lease("a", 10):
        assert known.spare.room("m") == 3
        known.spare.learn("w", {"w": ({"a": 2}, []), "v": ({"a": 4}, [])}, FAR_S)
        assert known.spare.room("m") == 0  # one row is left, and it is the other worker's
        assert known.spare.report() == ({"a": 2}, [])


async def test_rows_take_from_the_room_and_are_not_reported_as_load() -> None:
    known = Known(endpoint("a"))
    with known.ledger.spare_lease("a", 10):
        assert (known.spare.room("m"), known.spare.held("m")) == (3, 1)
        assert known.spare.report() == ({}, [])
    assert (known.spare.room("m"), known.spare.held("m")) == (4, 0)


@pytest.mark.parametrize("here", [True, False])
async def test_nothing_is_spare_while_requests_wait_for_the_model(here: bool) -> None:
    known = Known(endpoint("a"))
    if here:
        known.waiting["m"] += 1
        assert known.spare.report() == ({}, ["m"])
    else:
        known.spare.learn("w", {"v": ({}, ["m"])}, FAR_S)
    assert known.spare.room("m") == 0
    assert not known.spare.admits(known.snapshot.endpoints["m"][0])


async def test_rows_stay_with_the_profile_that_is_there_for_them() -> None:
    latency, throughput = endpoint("fast", "latency"), endpoint("many", "throughput", slots=2)
    known = Known(latency, throughput)
    assert (known.spare.room("m"), known.spare.admits(latency)) == (1, False)
    assert Known(latency).spare.admits(latency), "without one, its stand-ins serve"
    assert Known(endpoint("a", state="draining")).spare.room("m") == 0
