"""Sides of a rollout: shares hold, sessions stay, and nobody is left without an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_registry.entities import Endpoint
from model_registry.rolling import Rolling
from model_registry.rollouts import Phase, RolloutStatus
from model_registry.snapshot import Snapshot
from router.errors import NoEndpointsError
from router.sides import lot, served_by
from tests.router.two_engines import EXPECTED, MODEL, Collected, Fleet, fleet

__all__ = ["fleet"]


def endpoint(name: str, **changes: object) -> Endpoint:
    fields = {"lane": "openai-http", "target": "m", "http": "http://a:1", "state": "ready"}
    deployment = name.partition("@")[0]
    known = {"name": name, "deployment": deployment, "model": "m", "profile": "balanced", **fields}
    return Endpoint.model_validate(known | changes)


OLD = endpoint("old@a")
NEW = endpoint("new@b", weight=0, labels={"region": "eu"})


def rolling(share: float, endpoints: Sequence[Endpoint] = (OLD, NEW), phase: Phase = "canary") -> Rolling:
    status = RolloutStatus(name="r", model="m", stable="old", candidate="new", phase=phase, share=share)
    return Snapshot.of(1, [*endpoints, status]).rolling["m"]


def side(rolled: Rolling, key: str = "k", **how: object) -> list[str]:
    asked = {"profile": "balanced", "lanes": None, "unavailable": frozenset(), **how}
    return [one.deployment for one in served_by(rolled, key, **asked)]  # type: ignore[arg-type]


def test_the_candidate_gets_its_share_and_counts_as_if_it_had_weight() -> None:
    rolled = rolling(0.1)
    taken = sum(side(rolled, f"request {number}") == ["new"] for number in range(5000))
    assert 420 < taken < 580
    assert [one.weight for one in rolled.candidate] == [1.0]


@settings(max_examples=30)
@given(st.text(max_size=20), st.floats(0, 0.9), st.floats(0, 1))
def test_a_session_that_is_the_candidates_stays_so_while_the_share_grows(
    session: str, share: float, more: float
) -> None:
    if side(rolling(share), session) == ["new"]:
        assert side(rolling(min(1.0, share + more)), session) == ["new"]
    assert 0 <= lot("r", session) < 1


def test_before_the_first_step_nothing_goes_to_the_candidate() -> None:
    down = OLD.model_copy(update={"state": "unhealthy"})
    assert side(rolling(0.0, (down, NEW), "shadow")) == ["old"]


def test_where_the_candidate_cannot_the_stable_one_does() -> None:
    rolled = rolling(1.0)
    assert side(rolled) == ["new"]
    assert side(rolled, unavailable={"new@b"}) == ["old"]
    assert side(rolled, lanes=frozenset({"vllm"})) == ["old"]
    assert side(rolled, profile="latency") == ["old"]
    assert side(rolled, spare=True) == ["old"], "rows of batch jobs keep to what is proven"
    assert side(rolled, fits=lambda one: one.labels.get("region") == "us") == ["old"]
    unready = NEW.model_copy(update={"state": "starting"})
    assert side(rolling(1.0, (OLD, unready))) == ["old"]


def test_where_nothing_else_is_left_the_candidate_serves_all() -> None:
    down = OLD.model_copy(update={"state": "unhealthy"})
    assert side(rolling(0.001, (down, NEW))) == ["new"]
    idle = OLD.model_copy(update={"weight": 0.0})
    assert side(rolling(0.001, (idle, NEW))) == ["new"]


def test_rollouts_that_are_not_under_way_change_nothing() -> None:
    status = RolloutStatus(name="r", model="m", stable="old", candidate="new", phase="promoted", share=1.0)
    assert Snapshot.of(1, [OLD, NEW, status]).rolling == {}


@pytest.mark.parametrize("fault", [None, "busy", "drop", "break"])
async def test_a_request_that_the_candidate_fails_is_answered_all_the_same(
    fleet: Fleet, fault: str | None
) -> None:
    """By the stable deployment, from the begin, or from where the candidate's stream broke."""
    stable, candidate = fleet.endpoints
    status = RolloutStatus(name="r", model="m", stable="a", candidate="b", phase="canary", share=1.0)
    idle = candidate.model_copy(update={"weight": 0.0})
    fleet.snapshot = Snapshot.of(2, [MODEL, stable, idle, status])
    fleet.router.registry_changed()
    fleet.b.faults = [fault] if fault is not None else []
    answer = Collected()
    finished = await fleet.run(answer)
    assert (answer.ids, finished.endpoint.name) == (EXPECTED, "b" if fault is None else "a")


async def test_a_candidate_that_is_only_copied_stands_in_for_nobody(fleet: Fleet) -> None:
    """With the stable deployment away there is no endpoint, as there was none before the rollout."""
    stable, candidate = fleet.endpoints
    status = RolloutStatus(name="r", model="m", stable="a", candidate="b", phase="shadow")
    away = stable.model_copy(update={"state": "unhealthy"})
    fleet.snapshot = Snapshot.of(2, [MODEL, away, candidate, status])
    fleet.router.registry_changed()
    with pytest.raises(NoEndpointsError):
        await fleet.run(Collected())
    assert fleet.b.asked == []
