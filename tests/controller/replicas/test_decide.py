"""What the next version of the registry holds, after what was seen and what errands came to."""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuators.port import Found
from controller.replicas.acts import Seen
from controller.replicas.adoption import Nameless
from controller.replicas.config import ReplicasConfig
from controller.replicas.decide import Changes, Facts, decide
from controller.replicas.records import FOUND
from controller.residency.neighbours import RESTARTS
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.drains import Drain
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ScalingStatus
from model_registry.snapshot import Snapshot, Stored

NOW = 1000.0
POOL = Pool(name="p", actuator=DryRunActuator(type="dry-run"))
DEPLOYMENT = Deployment(name="d", model="m", scaling=Scaling(pool="p", min_replicas=0, max_replicas=5))


def decided(
    *objects: Stored,
    seen: dict[str, Seen],
    wanted: int = 1,
    age_s: float = 1e9,
    nameless: Sequence[Nameless] = (),
    unlooked: Sequence[str] = (),
) -> Changes:
    snapshot = Snapshot.of(1, (Model(name="m", context_length=10), POOL, DEPLOYMENT, *objects))
    demand = Demand(at_s=NOW, age_s=0.5, workers=1)
    facts = Facts({"d": Wanted(wanted, "load")}, demand, seen, {}, nameless, {"d": age_s}, unlooked=unlooked)
    return decide(snapshot, facts, ReplicasConfig(retry_s=5), NOW)


def replica(number: int, reason: str = "") -> Replica:
    return Replica(name=f"d.00000{number}", deployment="d", model="m", pool="p", since=NOW, reason=reason)


def test_one_that_ends_before_it_is_ready_holds_up_the_next_start() -> None:
    """As one that never listened: a model that kills its server would else be loaded again and again."""
    server = ServerRef(http="http://h:1")
    one = Replica(name="d.000001", deployment="d", model="m", pool="p", server=server, handle="x")
    changes = decided(one, seen={one.name: Seen(endpoint="d@h:1", lost=True)})
    assert [(each.state, each.reason) for each in changes.replicas] == [
        ("failed", "it ended before it was ready")
    ]
    (status,) = [item for item in changes.puts if isinstance(item, ScalingStatus)]
    assert (status.failures, status.retry_at) == (1, NOW + 5)


def test_figures_go_with_a_record_that_is_written_anyway() -> None:
    """The status says nothing new in numbers; alone it would wait."""
    status = decided(seen={}, wanted=0).puts[0]
    assert isinstance(status, ScalingStatus)
    older = status.model_copy(update={"reason": "before"})
    assert decided(older, seen={}, wanted=0, age_s=3.0).puts == []
    other = Replica(name="e.000001", deployment="e", model="m", pool="p")
    changes = decided(older, other, seen={}, wanted=0, age_s=3.0)
    assert [(type(item).__name__, item.name) for item in changes.puts] == [
        ("Replica", "e.000001"),
        ("ScalingStatus", "d"),
    ]


def test_something_with_our_mark_and_an_impossible_name_stops_nothing() -> None:
    nameless = [Nameless("p", Found("not a name!", "h1"), 99), Nameless("p", Found("e.00000a", "h2"), 99)]
    changes = decided(seen={}, wanted=1, nameless=nameless)
    assert sorted(one.state for one in changes.replicas) == ["starting", "stopping"]


def test_what_can_be_no_deployments_replica_goes_in_the_end() -> None:
    """Its deployment may only not have been applied again yet."""
    found = Found("e.00000a", "h")
    assert decided(seen={}, wanted=0, nameless=[Nameless("p", found, 59)]).replicas == []
    (one,) = decided(seen={}, wanted=0, nameless=[Nameless("p", found, 60)]).replicas
    assert (one.state, one.handle, one.reason) == ("stopping", "h", "no record named it")


def test_nothing_of_an_unknown_deployment_is_started_before_its_pool_was_looked_at() -> None:
    assert decided(seen={}, unlooked=["p"]).puts == []
    status = decided(seen={}, wanted=0).puts[0]
    assert [one.state for one in decided(status, seen={}, unlooked=["p"]).replicas] == ["starting"]


def test_what_was_found_is_not_stopped_before_it_is_known_whether_it_serves() -> None:
    """It may have requests; a start that is not wanted any more has none."""
    found = replica(1, reason=FOUND)
    assert [one.state for one in decided(found, replica(2), seen={}, wanted=0).replicas] == [
        "starting",
        "stopping",
    ]
    ready = found.model_copy(update={"state": "ready", "reason": ""})
    seen = {ready.name: Seen(endpoint="e", ready=True)}
    assert [one.state for one in decided(ready, seen=seen, wanted=0).replicas] == ["draining"]


def test_what_was_found_on_a_drained_server_finishes_there() -> None:
    found = replica(1, reason=FOUND)

    def state(seen: Seen) -> list[str]:
        return [
            one.state for one in decided(found, seen={found.name: seen}).replicas if one.name == found.name
        ]

    assert state(Seen(drained=True)) == ["starting"], "where it listens is not known yet"
    assert state(Seen(endpoint="e", drained=True)) == ["draining"]


def test_drains_for_a_restart_end_with_the_leader_who_knew_why() -> None:
    """What an operator drains is theirs."""
    ours = Drain(name="restart-f-h-1", endpoint="f@h:1", reason=RESTARTS)
    theirs = Drain(name="f-h-2", endpoint="f@h:2")
    assert decided(ours, theirs, seen={}, wanted=0).gone == [("Drain", ours.name)]


def test_a_deployment_moves_into_a_pool_where_memory_decides() -> None:
    """Nobody waits for it there, as it serves where it was. Of what it wants one is enough for that to go."""

    def packed(name: str, http: str) -> Pool:
        server = PoolServer(http=http, memory_mib=100)
        return Pool(name=name, actuator=TritonActuator(type="triton", servers=(server,)))

    scaling = Scaling(pool="q", min_replicas=0, max_replicas=5, memory_mib=60)
    moved, idle = (Deployment(name=name, model=name, scaling=scaling) for name in "di")
    before = Replica(name="d.1", deployment="d", model="d", pool="p", place="http://p", state="ready")
    there = before.model_copy(update={"name": "d.2", "pool": "q", "place": "http://q", "handle": "x"})
    other = there.model_copy(update={"name": "i.1", "deployment": "i", "model": "i"})
    models = [Model(name=name, context_length=10) for name in "di"]
    pools = [packed("p", "http://p"), packed("q", "http://q")]

    def states(*records: Replica) -> dict[str, str]:
        stored = Snapshot.of(1, (*models, *pools, moved, idle, *records))
        seen = {one.name: Seen(endpoint=one.name, ready=True) for one in records}
        wanted = {"d": Wanted(2, "load"), "i": Wanted(1, "load")}
        facts = Facts(wanted, Demand(at_s=NOW, age_s=0.5, workers=1), seen, {}, (), {})
        return {
            f"{one.deployment}@{one.pool}": one.state
            for one in decide(stored, facts, ReplicasConfig(), NOW).replicas
        }

    assert states(before) == {"d@p": "ready", "d@q": "starting"}
    assert states(before, other) == {"d@p": "ready", "i@q": "draining"}
    assert states(before, there) == {"d@p": "draining", "d@q": "ready"}
    assert states(other) == {"i@q": "ready"}, "wanted alone brings none in"


class TestModelsOfTritons:
    """They carry no mark."""

    URL = "http://t:8000"
    LOADED = Found("", "x@http://t:8000", URL, "x")
    POOL = Pool(name="p", actuator=TritonActuator(type="triton", servers=(PoolServer(http=URL),)))
    ONE = Deployment(name="d", model="m", target="x", scaling=Scaling(pool="p", min_replicas=0))

    def places(self, *objects: Stored, for_s: float = 0, was_known: bool = False, **of: str) -> list[str]:
        """Of the records after a look at a server that has `x` loaded: deployment and server."""
        loaded = self.LOADED._replace(**of)
        snapshot = Snapshot.of(1, (Model(name="m", context_length=10), self.POOL, *objects))
        demand = Demand(at_s=NOW, age_s=0.5, workers=1)
        facts = Facts({}, demand, {}, {}, [Nameless("p", loaded, for_s, was_known)], {})
        changes = decide(snapshot, facts, ReplicasConfig(), NOW)
        return [f"{one.deployment}@{one.place}" for one in changes.replicas if one.reason == FOUND]

    def test_one_that_a_new_deployment_is_called_is_its_replica(self) -> None:
        assert self.places(self.ONE) == [f"d@{self.URL}"]
        assert self.places(self.ONE, target="y") == []

    def test_of_several_deployments_each_gets_its_part(self) -> None:
        other = self.ONE.model_copy(update={"name": "c", "profile": "latency"})
        nameless = [
            Nameless("p", Found("", f"x@http://{n}", f"http://{n}", "x")) for n in ("one", "two", "three")
        ]
        snapshot = Snapshot.of(1, (Model(name="m", context_length=10), self.POOL, self.ONE, other))
        facts = Facts({}, Demand(at_s=NOW, age_s=0.5, workers=1), {}, {}, nameless, {})
        changes = decide(snapshot, facts, ReplicasConfig(), NOW)
        assert sorted(one.deployment for one in changes.replicas) == ["c", "c", "d"]

    def test_what_an_operator_has_loaded_is_left_alone(self) -> None:
        """Where the deployment is known, and where another one has it as one of its `servers`."""
        status = ScalingStatus(name="d", model="m", pool="p")
        assert self.places(self.ONE, status, for_s=1e6) == []
        fixed = Deployment(name="f", model="m", target="x", servers=(ServerRef(http=f"{self.URL}/"),))
        assert self.places(self.ONE, fixed) == []

    def test_what_was_loaded_late_by_a_leader_that_was_frozen_is_found(self) -> None:
        """After a while: its record may just have gone with it."""
        status = ScalingStatus(name="d", model="m", pool="p")
        assert self.places(self.ONE, status, for_s=59, was_known=True) == []
        assert self.places(self.ONE, status, for_s=60, was_known=True) == [f"d@{self.URL}"]
