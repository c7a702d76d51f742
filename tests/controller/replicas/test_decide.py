"""What the next version of the registry holds, after what was seen and what errands came to."""

from __future__ import annotations

from collections.abc import Sequence

from controller.actuators.port import Found
from controller.replicas.acts import Seen
from controller.replicas.config import ReplicasConfig
from controller.replicas.decide import Changes, Facts, decide
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
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
    orphans: Sequence[tuple[str, Found]] = (),
) -> Changes:
    snapshot = Snapshot.of(1, (Model(name="m", context_length=10), POOL, DEPLOYMENT, *objects))
    demand = Demand(at_s=NOW, age_s=0.5, workers=1)
    facts = Facts({"d": Wanted(wanted, "load")}, demand, seen, {}, orphans, {"d": age_s})
    return decide(snapshot, facts, ReplicasConfig(retry_s=5), NOW)


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
    orphans = [("p", Found("not a name!", "h1")), ("p", Found("d.00000a", "h2"))]
    changes = decided(seen={}, wanted=1, orphans=orphans)
    assert sorted(one.state for one in changes.replicas) == ["starting", "stopping"]
