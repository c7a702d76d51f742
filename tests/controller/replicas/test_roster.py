"""Records of replicas that somebody else places follow what is seen, and numbers follow the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.actuators.port import Member
from controller.replicas.acts import Seen
from controller.replicas.config import ReplicasConfig
from controller.replicas.decide import Facts, decide
from controller.replicas.roster import (
    FOUND,
    GIVE_BACK_S,
    TAKEN_DOWN,
    Entry,
    Number,
    Sighting,
    enrolled,
    foreseen,
    in_order,
    number_of,
    patient,
)
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, KubernetesActuator, Pool
from model_registry.replicas import Replica, ScalingStatus
from model_registry.snapshot import Snapshot, Stored

NOW = 1000.0
CONFIG = ReplicasConfig(drain_s=300)
POOLS = {
    "k": Pool(name="k", actuator=KubernetesActuator(type="kubernetes")),
    "dry": Pool(name="dry", actuator=DryRunActuator(type="dry-run")),
}
CHAT = Deployment(name="chat", model="m", scaling=Scaling(pool="k", max_replicas=9))


def record(
    name: str, state: Any = "ready", handle: str | None = None, age_s: float = 10, **fields: Any
) -> Replica:
    times = {"created": NOW - age_s, "since": NOW - age_s}
    whole = {"name": f"chat.{name}", "deployment": "chat", "model": "m", "pool": "k", "state": state, **times}
    return Replica(**{**whole, "handle": handle, **fields})


def member(handle: str, ready: bool = True, terminating: bool = False) -> Member:
    return Member(handle, ServerRef(http=f"http://{handle}:8000"), ready and not terminating, terminating)


def entry(*members: Member, order: tuple[str, ...] | None = None) -> Entry:
    return Entry(members, order)


def after(
    records: list[Replica], seen: Entry | None, *deployments: Deployment, moving: tuple[str, ...] = ()
) -> dict[str, Replica]:
    roster = {} if seen is None else {"chat": seen}
    known = {one.name: one for one in deployments or (CHAT,)}
    return enrolled(records, roster, POOLS, known, moving, CONFIG, NOW)


def test_a_pod_that_appears_is_the_replica_that_waits_longest() -> None:
    records = [record("a", "starting", age_s=5), record("b", "starting", age_s=9), record("c", "ready", "p0")]
    found = after(records, entry(member("p0"), member("p1", ready=False)))
    assert found["chat.b"].handle == "p1"
    assert found["chat.b"].server == ServerRef(http="http://p1:8000")
    assert found["chat.b"].created == NOW - 9, "its cold start counts from the decision"
    assert found["chat.a"].handle is None
    assert found["chat.c"] == records[2]


def test_pods_that_were_there_before_are_taken_over() -> None:
    found = list(
        after([], entry(member("p0"), member("p1", ready=False), member("p2", terminating=True))).values()
    )
    assert [(one.handle, one.state, one.reason) for one in found] == [
        ("p0", "ready", FOUND),
        ("p1", "starting", FOUND),
    ]
    assert len({one.name for one in found}) == 2


def test_one_pod_more_in_a_rolling_update_is_nobody_until_the_old_one_goes() -> None:
    """Else it would be one too many, and be told to go before it ever served."""
    old = record("a", "ready", "old")
    assert after([old], entry(member("old"), member("new", ready=False))) == {"chat.a": old}
    going = after([old], entry(member("old", terminating=True), member("new")))
    old, new = sorted(going.values(), key=lambda one: one.state)
    assert (old.name, old.state, old.handle) == ("chat.a", "draining", "old")
    assert (new.state, new.handle, new.reason) == ("ready", "new", FOUND)
    assert new.cold_start_s is None, "it was on its way before it was asked for"


def test_a_record_ends_with_its_pod_and_one_that_was_not_told_to_go_is_replaced() -> None:
    states = ["starting", "ready", "draining", "stopping", "failed"]
    records = [record(state, state, f"p-{state}", server=ServerRef(http="http://x")) for state in states]
    found = after(records, entry())
    anew = found.pop("chat.starting")
    assert (anew.handle, anew.server, anew.created) == (None, None, records[0].created)
    (replacement,) = found.values()
    assert (replacement.state, replacement.handle) == ("starting", None)
    assert replacement.reason == "in place of chat.ready"
    assert number_of([anew, replacement], entry()) == Number(2, ()), "an eviction changes no number"
    assert len(after(records, None)) == 5, "while nothing certain is known, all stay"


def test_a_pod_that_is_taken_down_drains_and_is_replaced() -> None:
    records = [record("a", "starting", "p0"), record("b", "ready", "p1"), record("c", "stopping", "p2")]
    seen = entry(*(member(f"p{at}", terminating=True) for at in range(3)))
    found = after(records, seen)
    assert [(one.state, one.handle, one.reason.partition(" of ")[0]) for one in found.values()] == [
        ("starting", None, ""),
        ("starting", None, "in place"),
        ("draining", "p1", TAKEN_DOWN),
        ("stopping", "p2", ""),
    ]
    assert number_of(found.values(), seen) == Number(2, ())


def test_what_never_had_a_pod_and_is_not_wanted_any_more_is_gone_at_once() -> None:
    assert after([record("a", "stopping"), record("b", "failed")], entry()) == {}


def test_one_that_should_have_gone_counts_again_once_another_was_taken_in_its_place() -> None:
    told, other = record("a", "stopping", "p0"), record("b", "ready", "p1")
    assert after([told, other], entry(member("p0"), member("p1"))) == {"chat.a": told, "chat.b": other}
    found = after([told, other], entry(member("p0"), member("p1", terminating=True)))
    assert sorted((one.state, one.handle) for one in found.values()) == [("draining", "p1"), ("ready", "p0")]
    assert "chat.a" not in found


def test_one_that_nobody_takes_counts_again_in_the_end() -> None:
    """As where an autoscaler sets the number, and does not."""
    late = CONFIG.drain_s + GIVE_BACK_S
    young, old = (record("a", "stopping", "p0", age_s=age_s) for age_s in (late - 1, late + 1))
    other = record("b", "ready", "p1")
    seen = entry(member("p0"), member("p1"))
    assert after([young, other], seen).keys() == {"chat.a", "chat.b"}
    assert after([old, other], seen).keys() == {"chat.b"}
    waits = record("c", "starting")
    assert after([old, other, waits], seen)["chat.c"].handle == "p0"


def test_the_pool_of_others_is_left_alone_and_a_deleted_deployment_let_go() -> None:
    other = record("o", "ready", "x", pool="dry", deployment="other")
    assert after([other, record("a", "ready", "p0")], None, CHAT).keys() == {"chat.o", "chat.a"}
    moved = CHAT.model_copy(update={"scaling": Scaling(pool="dry")})
    for deployments in ([moved], [CHAT.model_copy(update={"name": "z"})]):
        assert after([other, record("a", "ready", "p0")], None, *deployments) == {"chat.o": other}


def test_while_a_deployment_moves_what_serves_stays_where_it_was() -> None:
    moved, records = CHAT.model_copy(update={"scaling": Scaling(pool="dry")}), [record("a", "ready", "p0")]
    assert after(records, None, moved, moving=("chat",)) == {"chat.a": records[0]}
    assert after(records, None, moved) == {}


def test_the_number_is_of_those_that_serve_or_still_have_requests() -> None:
    records = [
        record("a", "starting"),
        record("b", "ready", "p0"),
        record("c", "draining", "p1"),
        record("d", "stopping", "p2"),
        record("e", "failed", "p3"),
        record("f", "draining", "p4"),
    ]
    seen = entry(*(member(f"p{at}") for at in range(4)), member("p4", terminating=True))
    assert number_of(records, seen) == Number(3, ("p2", "p3"))
    gone = entry(*(member(f"p{at}", terminating=at == 2) for at in range(4)))
    assert number_of(records[:5], gone) == Number(3, ("p3",)), "one that is going is counted by nobody"


def test_where_the_order_is_fixed_nobody_goes_before_those_in_front() -> None:
    order = ("p3", "p2", "p1", "p0")
    seen = entry(*(member(handle) for handle in order), order=order)

    def states(*of: str) -> list[Replica]:
        return [record(str(at), state, f"p{at}") for at, state in enumerate(of)]

    assert number_of(states("ready", "ready", "stopping", "draining"), seen) == Number(4, ())
    assert number_of(states("ready", "ready", "stopping", "stopping"), seen) == Number(2, ("p3", "p2"))
    assert number_of(states("stopping", "ready", "ready", "stopping"), seen) == Number(3, ("p3",))


def test_a_number_that_was_decided_without_knowing_of_any_replica_is_no_number() -> None:
    """Else the first look at a fleet that runs would take it down to the minimum."""
    wanted = {"chat": Wanted(0, "nobody asks"), "other": Wanted(2, "load")}
    there = [record("a", handle="p0")]
    assert foreseen(wanted, [], there).keys() == {"other"}
    assert foreseen(wanted, there, there) == wanted
    assert foreseen(wanted, [], []) == wanted


def test_what_cannot_be_replaced_is_waited_for() -> None:
    seen = {"chat.a": Seen("e", out_s=99), "chat.b": Seen("e", out_s=99), "x": Seen("e", out_s=99)}
    records = [record("a", handle="p0"), record("b", "draining", "p1")]
    fixed = patient(seen, {"chat": entry(order=("p1", "p0"))}, records)
    assert {name: one.out_s for name, one in fixed.items()} == {"chat.a": 0, "chat.b": 99, "x": 99}
    assert patient(seen, {"chat": entry()}, records) == seen


def test_who_leaves_is_by_the_order_where_that_is_fixed() -> None:
    records = [
        record("0", handle="p0"),
        record("1", handle="p1"),
        record("2", handle="p2"),
        record("n", "starting"),
    ]
    wish = {"chat": Wanted(2, "less", leaving=("chat.0", "chat.1"))}
    seen = [member(f"p{at}") for at in range(3)]
    fixed = in_order(wish, {"chat": entry(*seen, order=("p2", "p1", "p0"))}, records)
    assert fixed["chat"] == Wanted(2, "less", leaving=("chat.n", "chat.2"))
    assert in_order(wish, {"chat": entry(*seen)}, records) == wish
    assert in_order({}, {"chat": entry(*seen, order=("p2",))}, records) == {}


def decided(records: list[Replica], roster: Mapping[str, Entry], wanted: int) -> tuple[list[str], str]:
    """States from then on, and what the status says."""
    objects: list[Stored] = [Model(name="m", context_length=9), POOLS["k"], CHAT, *records]
    problems = {} if roster else {"chat": "its pods are not known yet"}
    facts = Facts(
        wanted={"chat": Wanted(wanted, "load")},
        demand=Demand(at_s=NOW, age_s=0.0, workers=1),
        seen={},
        outcomes={},
        nameless=(),
        figures_age_s={},
        sighting=Sighting(roster, problems),
    )
    changes = decide(Snapshot.of(1, objects), facts, CONFIG, NOW)
    (status,) = [item for item in changes.puts if isinstance(item, ScalingStatus)]
    return sorted(one.state for one in changes.replicas), status.reason


def test_before_anything_is_known_nothing_is_asked_for() -> None:
    """A record made then would stand for one of the pods that there are, and the rest would be nobody."""
    assert decided([], {}, 2) == ([], "its pods are not known yet")
    assert decided([record("a", handle="p0")], {}, 0) == (["ready"], "its pods are not known yet")
    three = entry(*(member(f"p{at}") for at in range(3)))
    assert decided([], {"chat": three}, 1)[0] == ["ready"] * 3, "what runs is taken over before it is judged"
    assert decided([], {"chat": entry()}, 2) == (["starting"] * 2, "load")
