"""What is planned for the replicas of a pool, by numbers, health, load, room and failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from controller.replicas.acts import Act, Backoff, Drain, GiveUp, Seen, Start, Stop, TakeBack
from controller.replicas.config import ReplicasConfig
from controller.replicas.plan import REMOVED, Planned, plan
from controller.replicas.sight import Sight
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.drains import Drain as ServerDrain
from model_registry.entities import Deployment, Model, Scaling
from model_registry.pools import DryRunActuator, Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ReplicaState
from model_registry.snapshot import Snapshot

NOW = 1000.0
CONFIG = ReplicasConfig(drain_s=100, settle_s=1, replace_after_s=30, stale_after_s=10)
POOL = Pool(name="p", actuator=DryRunActuator(type="dry-run"))
HTTP = ["http://t0:8000", "http://t1:8000", "http://t2:8000"]
TRITONS = Pool(
    name="p",
    actuator=TritonActuator(type="triton", servers=tuple(PoolServer(http=http) for http in HTTP)),
)
FRESH = Demand(at_s=NOW, age_s=1.0, workers=1)


def deployment(name: str = "d", *, target: str | None = None) -> Deployment:
    scaling = Scaling(pool="p", min_replicas=0, max_replicas=5)
    return Deployment(name=name, model="m", target=target, scaling=scaling)


def replica(name: str, state: ReplicaState = "ready", **fields: object) -> Replica:
    base = {"name": name, "deployment": "d", "model": "m", "pool": "p", "state": state, "created": 1.0}
    return Replica.model_validate({**base, **fields})


def seen(*names: str, **differing: Seen) -> dict[str, Seen]:
    return {name: Seen(endpoint=f"d@{name}:1", ready=True) for name in names} | differing


def load(**requests: int) -> Demand:
    """Fresh reports of requests in flight at replicas' endpoints."""
    endpoints = {f"d@{name}:1": EndpointDemand(requests=number) for name, number in requests.items()}
    return Demand(at_s=NOW, age_s=1.0, workers=1, endpoints=endpoints)


def planned(
    replicas: list[Replica],
    wanted: int | None,
    *,
    pool: Pool = POOL,
    demand: Demand = FRESH,
    at: dict[str, Seen] | None = None,
    backoff: Backoff | None = None,
    leaving: tuple[str, ...] = (),
    drains: Sequence[ServerDrain] = (),
) -> Planned:
    asked = {} if wanted is None else {"d": Wanted(wanted, "load", leaving=leaving)}
    return plan(
        NOW,
        pool,
        [deployment()],
        replicas,
        asked,
        demand,
        seen=seen(*(one.name for one in replicas)) if at is None else at,
        backoffs={} if backoff is None else {"d": backoff},
        config=CONFIG,
        drains=drains,
    )


def told(acts: tuple[Act, ...]) -> list[tuple[str, str]]:
    """Each act's kind, and its replica or place."""
    return [
        (type(one).__name__, str(one.place) if isinstance(one, Start) else one.replica.name) for one in acts
    ]


def test_what_is_missing_is_started() -> None:
    acts = planned([replica("a"), replica("b", "starting")], 4).acts
    assert [Start(deployment(), None, "4 wanted: load")] * 2 == list(acts)


@pytest.mark.parametrize("state", ["draining", "stopping", "failed"])
def test_what_goes_does_not_count(state: ReplicaState) -> None:
    """Neither one that is being stopped nor one that has failed serves anybody."""
    leaving = replica("a", state, since=NOW)
    acts = planned([leaving], 1).acts
    if state == "draining":
        assert told(acts) == [("TakeBack", "a")]
    else:
        assert told(acts) == [("Start", "None")]


def test_of_those_that_drain_the_busiest_is_taken_back() -> None:
    draining = [replica(name, "draining", since=NOW - 1) for name in "abc"]
    acts = planned(draining, 2, demand=load(a=1, b=3, c=2)).acts
    assert told(acts) == [("TakeBack", "b"), ("TakeBack", "c")]
    assert acts[0] == TakeBack(draining[1], "it is wanted again")


def test_the_least_useful_go_first() -> None:
    """Not ready, then those with the fewest requests, then the youngest."""
    old, young, busy = replica("old", created=1), replica("young", created=2), replica("busy", created=3)
    starting = replica("new", "starting", created=4)
    demand = load(busy=2)
    for wanted, expected in (
        (3, [("Stop", "new")]),
        (2, [("Stop", "new"), ("Drain", "young")]),
        (1, [("Stop", "new"), ("Drain", "young"), ("Drain", "old")]),
    ):
        at = seen("old", "young", "busy")
        assert told(planned([busy, old, young, starting], wanted, demand=demand, at=at).acts) == expected


def test_those_that_should_go_first_do() -> None:
    acts = planned([replica("a"), replica("b")], 1, demand=load(b=5), leaving=("b", "a")).acts
    assert told(acts) == [("Drain", "b")]


@pytest.mark.parametrize("age_s", [None, 11.0])
def test_stale_reports_take_nothing_away(age_s: float | None) -> None:
    """Nobody has told, or not lately: what there is stays, and more may still come."""
    stale = Demand(at_s=NOW, age_s=age_s)
    assert planned([replica("a"), replica("b")], 0, demand=stale).acts == ()
    assert told(planned([replica("a")], 2, demand=stale).acts) == [("Start", "None")]


def test_without_a_word_on_it_what_there_is_stays() -> None:
    assert planned([replica("a"), replica("b")], None).acts == ()


def test_a_deployment_that_left_the_pool_drains_though_reports_are_stale() -> None:
    replicas = [replica("a"), replica("b", "starting")]
    acts = plan(NOW, POOL, [], replicas, {}, Demand(at_s=NOW, age_s=None), seen=seen("a"), config=CONFIG).acts
    assert told(acts) == [("Drain", "a"), ("Stop", "b")]


def test_a_deployment_that_moves_keeps_what_serves_until_its_new_pool_has_what_it_wants() -> None:
    acts = plan(NOW, POOL, [], [replica("a")], {}, FRESH, seen=seen("a"), config=CONFIG, moving={"d"}).acts
    assert acts == ()


def test_a_drained_replica_stops_when_a_later_report_tells_of_no_request() -> None:
    """Not before: a report made while gateways could still send there proves nothing."""
    draining = replica("a", "draining", since=NOW - 20)
    out = {"a": Seen(endpoint="d@a:1", out_s=10)}
    assert told(planned([draining], 0, demand=load(a=0), at=out).acts) == [("Stop", "a")]
    assert planned([draining], 0, demand=load(a=1), at=out).acts == ()
    early = replace_age(load(a=0), 9.5)
    assert planned([draining], 0, demand=early, at=out).acts == ()
    still_registered = {"a": Seen(endpoint="d@a:1", ready=True)}
    assert planned([draining], 0, demand=load(a=0), at=still_registered).acts == ()


def test_nothing_goes_that_a_silent_gateway_may_use() -> None:
    """It may be cut off from Redis and serve all the same; others tell nothing of its requests."""
    silent = Demand(at_s=NOW, age_s=1.0, workers=1, silent=1)
    out = {"a": Seen(endpoint="d@a:1", out_s=10)}
    assert planned([replica("a", "draining", since=NOW - 20)], 0, demand=silent, at=out).acts == ()
    assert planned([replica("a")], 0, demand=silent).acts == ()
    assert told(planned([replica("a")], 2, demand=silent).acts) == [("Start", "None")]


def replace_age(demand: Demand, age_s: float) -> Demand:
    return Demand(at_s=demand.at_s, age_s=age_s, workers=1, endpoints=demand.endpoints)


def test_nobody_is_waited_for_longer_than_the_drain_lasts() -> None:
    draining = replica("a", "draining", since=NOW - 101)
    acts = planned([draining], 0, demand=load(a=1), at={"a": Seen(endpoint="d@a:1", out_s=100)}).acts
    assert acts == (Stop(draining, "requests had 100 s to finish"),)


def test_a_replica_that_died_is_given_up_and_another_comes() -> None:
    acts = planned([replica("a")], 1, at={"a": Seen(endpoint="d@a:1", ready=False, lost=True)}).acts
    assert told(acts) == [("GiveUp", "a"), ("Start", "None")]


def test_an_unhealthy_replica_is_replaced_before_it_goes() -> None:
    """It stays while it is the only one; once another serves, it drains."""
    sick = {"a": Seen(endpoint="d@a:1", out_s=31, reason="no answer")}
    assert told(planned([replica("a")], 1, at=sick).acts) == [("Start", "None")]
    starting = replica("b", "starting")
    assert planned([replica("a"), starting], 1, at=sick).acts == ()
    acts = planned([replica("a"), replica("b")], 1, at=sick | seen("b")).acts
    assert acts == (Drain(replica("a"), "it has not served for 31 s: no answer"),)
    patient = {"a": Seen(endpoint="d@a:1", out_s=29)}
    assert planned([replica("a")], 1, at=patient).acts == ()


def test_where_there_is_room_for_no_other_the_unhealthy_one_goes() -> None:
    full = POOL.model_copy(update={"max_replicas": 2})
    sick = {name: Seen(endpoint=f"d@{name}:1", out_s=out_s) for name, out_s in (("a", 31.0), ("b", 40.0))}
    acts = planned([replica("a"), replica("b")], 2, pool=full, at=sick).acts
    assert told(acts) == [("GiveUp", "b")]
    waiting = planned([replica("a"), replica("b", "failed")], 2, pool=full, at=sick)
    assert waiting.acts == (), "one at a time"


def test_a_pool_holds_what_it_holds() -> None:
    """Whatever is still there takes room, also what is going."""
    full = POOL.model_copy(update={"max_replicas": 2})
    result = planned([replica("a"), replica("b", "stopping")], 3, pool=full)
    assert result.acts == ()
    assert "max_replicas (2)" in result.held_up["d"]


def test_room_goes_to_whoever_has_the_smallest_part_of_what_it_wants() -> None:
    pool = POOL.model_copy(update={"max_replicas": 4})
    acts = plan(
        NOW,
        pool,
        [deployment("d"), deployment("e")],
        [replica("a")],
        {"d": Wanted(4, "load"), "e": Wanted(2, "load")},
        FRESH,
        seen=seen("a"),
        config=CONFIG,
    ).acts
    assert [one.deployment.name for one in acts if isinstance(one, Start)] == ["e", "d", "d"]


def test_a_triton_holds_a_model_once_and_the_emptiest_is_taken() -> None:
    there = [replica("a", place=HTTP[0], target="m"), replica("x", deployment="e", place=HTTP[1], target="x")]
    assert told(planned(there, 2, pool=TRITONS, at=seen("a", "x")).acts)[-1] == ("Start", HTTP[2])
    result = planned(
        [replica(name, place=http, target="m") for name, http in zip("abc", HTTP, strict=True)],
        5,
        pool=TRITONS,
    )
    assert result.acts == ()
    assert result.held_up == {"d": "every server of pool 'p' has 'm'"}


def test_after_a_failure_starts_wait_and_then_come_one_at_a_time() -> None:
    waiting = planned([], 3, backoff=Backoff(2, NOW + 5))
    assert waiting.acts == ()
    assert "2 in a row" in waiting.held_up["d"]
    due = Backoff(2, NOW - 1)
    assert told(planned([], 3, backoff=due).acts) == [("Start", "None")]
    assert planned([replica("a", "starting", since=NOW)], 3, backoff=due).acts == ()


def test_a_start_that_takes_too_long_has_failed() -> None:
    late = replica("a", "starting", since=NOW - CONFIG.ready_within_s - 1)
    at = {"a": replace(Seen(endpoint="d@a:1"), reason="it is not there")}
    acts = planned([late], 0, at=at).acts
    assert acts == (GiveUp(late, "it was not ready within 1800 s: it is not there"),)


def test_a_server_that_leaves_its_pool_serves_until_another_does() -> None:
    """Its model is unloaded once its requests have finished, not because nobody looks for it there."""
    here, elsewhere = HTTP[0], "http://old:8000"
    old = replica("a", place=elsewhere, server={"http": elsewhere}, handle=f"m@{elsewhere}")
    new = replica("b", place=here)
    on_old = sight_of(old)
    assert (on_old.removed, on_old.lost) == (True, False)
    leaving = {"a": replace(on_old, ready=True)}
    assert told(planned([old], 1, pool=TRITONS, at=leaving).acts) == [("Start", here)]
    coming = leaving | {"b": Seen(endpoint="d@b:1")}
    assert planned([old, new], 1, pool=TRITONS, at=coming).acts == ()
    there = leaving | {"b": Seen(endpoint="d@b:1", ready=True)}
    assert planned([old, new], 1, pool=TRITONS, at=there).acts == (Drain(old, REMOVED),)
    full = TRITONS.model_copy(update={"max_replicas": 1})
    assert planned([old], 1, pool=full, at=leaving).acts == (Drain(old, REMOVED),)
    budgets = tuple(PoolServer(http=http, memory_mib=100) for http in HTTP)
    packed = Pool(name="p", actuator=TritonActuator(type="triton", servers=budgets))
    assert planned([old], 1, pool=packed, at=leaving).acts == (Drain(old, REMOVED),)


def sight_of(one: Replica) -> Seen:
    """As its pool's servers are, with an actuator that does not find it."""
    stored = Snapshot.of(1, (Model(name="m", context_length=10), TRITONS, deployment(), one))
    return Sight().see(stored, [one.name])[one.name]
