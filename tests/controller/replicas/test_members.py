"""Records follow the members of a workload, and its number is set to what they come to."""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuators.port import Member
from controller.replicas.acts import Seen
from controller.replicas.config import ReplicasConfig
from controller.replicas.decide import Changes, Facts, decide
from controller.replicas.members import Crew, Leavers
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import KubernetesActuator, Pool
from model_registry.replicas import Replica
from model_registry.snapshot import Snapshot, Stored

NOW = 1000.0
POOL = Pool(name="p", actuator=KubernetesActuator(type="kubernetes"))
DEPLOYMENT = Deployment(name="d", model="m", scaling=Scaling(pool="p", min_replicas=0, max_replicas=5))
CONFIG = ReplicasConfig(settle_s=0)


def member(name: str, *, terminating: bool = False) -> Member:
    return Member(name, ServerRef(http=f"http://{name}:8000"), ready=True, terminating=terminating)


def as_asked(members: Sequence[Member], count: int, preferred: Sequence[str]) -> tuple[str, ...]:
    """As a Deployment with deletion costs: whoever is preferred, then anybody."""
    others = [one.handle for one in members if one.handle not in preferred]
    return (*preferred, *others)[:count]


def last_first(members: Sequence[Member], count: int, preferred: Sequence[str]) -> tuple[str, ...]:
    """As a StatefulSet: by ordinal, whatever is preferred."""
    del preferred
    return tuple(sorted((one.handle for one in members), reverse=True)[:count])


def record(name: str, state: str = "ready", reason: str = "") -> Replica:
    return Replica.model_validate(
        {
            "name": f"d.{name}",
            "deployment": "d",
            "model": "m",
            "pool": "p",
            "state": state,
            "reason": reason,
            "handle": name,
            "server": {"http": f"http://{name}:8000"},
            "since": NOW - 10,
            "created": 1.0,
        }
    )


def decided(
    members: Sequence[Member] | None,
    records: Sequence[Replica],
    wanted: int,
    *,
    leavers: Leavers = as_asked,
    leaving: tuple[str, ...] = (),
    busy: tuple[str, ...] = (),
    sets_number: bool = True,
    deployment: Deployment | None = DEPLOYMENT,
) -> Changes:
    objects: list[Stored] = [Model(name="m", context_length=10), POOL, *records]
    if deployment is not None:
        objects.append(deployment)
    endpoints = {f"d@{name}:8000": EndpointDemand(requests=1) for name in busy}
    facts = Facts(
        wanted={"d": Wanted(wanted, "load", leaving=leaving)},
        demand=Demand(at_s=NOW, age_s=0.0, workers=1, endpoints=endpoints),
        seen={
            one.name: Seen(f"d@{one.handle}:8000", ready=one.state == "ready", out_s=5.0) for one in records
        },
        outcomes={},
        orphans=(),
        figures_age_s={},
        crews={} if members is None else {"d": Crew(members, leavers, sets_number)},
        workloads=frozenset({"p"}),
    )
    return decide(Snapshot.of(1, objects), facts, CONFIG, NOW)


def states(changes: Changes) -> dict[str, str]:
    return {str(one.handle): one.state for one in changes.replicas}


def test_members_get_records_and_nothing_is_asked_of_their_number_yet() -> None:
    """How many are wanted was decided without knowing of them."""
    changes = decided([member("a"), member("b")], [], 1)
    assert states(changes) == {"a": "starting", "b": "starting"}
    assert changes.numbers == {}


def test_more_is_a_number() -> None:
    changes = decided([member("a")], [record("a")], 3)
    assert states(changes) == {"a": "ready"}
    assert changes.numbers["d"] == (3, ())


def test_fewer_drains_before_the_number_falls() -> None:
    crew = [member("a"), member("b")]
    changes = decided(crew, [record("a"), record("b")], 1, leaving=("d.b",))
    assert states(changes) == {"a": "ready", "b": "draining"}
    assert changes.numbers["d"] == (2, ())
    busy = decided(crew, [record("a"), record("b", "draining")], 1, busy=("b",))
    assert busy.numbers["d"] == (2, ())
    idle = decided(crew, [record("a"), record("b", "draining")], 1)
    assert states(idle) == {"a": "ready", "b": "stopping"}
    assert idle.numbers["d"] == (1, ("b",))


def test_the_number_takes_nobody_who_still_has_requests() -> None:
    """A StatefulSet takes the last first: what is done waits for those behind it."""
    crew = [member("a"), member("b"), member("c")]
    records = [record("a"), record("b", "draining"), record("c", "draining")]
    waiting = decided(crew, records, 1, leavers=last_first, busy=("c",))
    assert states(waiting) == {"a": "ready", "b": "draining", "c": "draining"}
    assert waiting.numbers["d"] == (3, ())
    half = decided(crew, records, 1, leavers=last_first, busy=("b",))
    assert half.numbers["d"] == (2, ("c",))


def test_requests_leave_those_that_will_go() -> None:
    crew = [member("a"), member("b")]
    changes = decided(crew, [record("a"), record("b")], 1, leavers=last_first, leaving=("d.a",))
    assert states(changes) == {"a": "ready", "b": "draining"}


def test_a_member_that_somebody_takes_down_drains_and_another_comes() -> None:
    crew = [member("a"), member("b", terminating=True)]
    changes = decided(crew, [record("a"), record("b")], 2)
    assert states(changes) == {"a": "ready", "b": "draining"}
    assert changes.numbers["d"] == (2, ())


def test_a_member_that_is_gone_has_no_record() -> None:
    changes = decided([member("a")], [record("a"), record("b", "stopping")], 1)
    assert states(changes) == {"a": "ready"}
    assert ("Replica", "d.b") in changes.gone


def test_members_that_are_not_known_change_nothing() -> None:
    changes = decided(None, [record("a")], 0)
    assert states(changes) == {"a": "ready"}
    assert changes.numbers == {}


def test_where_somebody_else_sets_the_number_only_the_order_is_said() -> None:
    crew = [member("a"), member("b"), member("c")]
    records = [record(name) for name in "abc"]
    changes = decided(crew, records, 1, sets_number=False, leaving=("d.b", "d.c", "d.a"))
    assert states(changes) == dict.fromkeys("abc", "ready")
    assert changes.numbers["d"] == (1, ("b", "c"))


def test_a_deployment_that_is_deleted_leaves_its_workload_alone() -> None:
    changes = decided([member("a")], [record("a")], 0, deployment=None)
    assert (changes.replicas, changes.numbers) == ([], {})
