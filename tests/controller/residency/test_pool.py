"""A pool's residency: from records, reports and what was learned to what is started and drained."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from controller.replicas.acts import Act, Drain, Seen, Start
from controller.replicas.plan import plan
from controller.residency.pool import Known, Memory, is_packed, leaking, resident
from controller.residency.value import Outlook
from controller.scaling.wanted import Wanted
from model_registry.demand.demand import Demand, EndpointDemand, GroupDemand
from model_registry.drains import Drain as ServerDrain
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica, ReplicaState, ScalingStatus

NOW_S = 1000.0
ONE, TWO = "http://one:8000", "http://two:8000"


def pool(*budgets: int | None, recycle: Sequence[str] = ("restart", "{http}")) -> Pool:
    servers = tuple(
        PoolServer(http=http, memory_mib=mib) for http, mib in zip((ONE, TWO), budgets, strict=False)
    )
    actuator = TritonActuator(type="triton", servers=servers, leak_mib=50, recycle=tuple(recycle))
    return Pool(name="p", actuator=actuator)


def deployment(name: str, mib: int | None = 100, **scaling: object) -> Deployment:
    given = {"pool": "p", "min_replicas": 0, "memory_mib": mib, **scaling}
    return Deployment(name=name, model=name, scaling=Scaling.model_validate(given))


def replica(name: str, place: str = ONE, state: ReplicaState = "ready", mib: int | None = 100) -> Replica:
    return Replica(
        name=f"{name}.000001",
        deployment=name,
        model=name,
        pool="p",
        state=state,
        place=place,
        server=ServerRef(http=place),
        handle=f"{name}@{place}",
        memory_mib=mib,
        since=0,
    )


def waiting(*models: str, busy: Sequence[str] = ()) -> Demand:
    groups = {f"{model}:balanced": GroupDemand(waiting=1, held=1, oldest_s=2) for model in models}
    endpoints = {name: EndpointDemand(requests=1) for name in busy}
    return Demand(at_s=NOW_S, age_s=0.5, workers=1, groups=groups, endpoints=endpoints)


def acts_of(
    where: Pool,
    deployments: Sequence[Deployment],
    replicas: Sequence[Replica],
    demand: Demand,
    known: Known | None = None,
) -> Sequence[Act]:
    seen = {one.name: Seen(endpoint=one.name, ready=True) for one in replicas}
    return plan(NOW_S, where, deployments, replicas, {}, demand, seen=seen, known=known or Known()).acts


def shown(acts: Sequence[Act]) -> list[tuple[str, str | None]]:
    """Starts with their place, drains with none."""
    return [
        (act.deployment.name, act.place) if isinstance(act, Start) else (act.replica.deployment, None)
        for act in acts
        if isinstance(act, Start | Drain)
    ]


def test_only_pools_with_a_budget_for_every_server_are_packed() -> None:
    assert is_packed(pool(300, 300))
    assert not is_packed(pool(300, None))
    assert not is_packed(Pool(name="p", actuator=DryRunActuator(type="dry-run")))


def test_what_is_held_comes_in_where_there_is_room() -> None:
    here = [replica("a"), replica("b")]
    acts = acts_of(pool(200, 200), [deployment(name) for name in "abc"], here, waiting("c"))
    assert shown(acts) == [("c", TWO)]


def test_the_idle_one_makes_room_and_the_busy_one_stays() -> None:
    here = [replica("a"), replica("b")]
    deployments = [deployment(name) for name in "abc"]
    acts = acts_of(pool(200), deployments, here, waiting("c", busy=["a.000001"]))
    assert shown(acts) == [("b", None)]


def test_nothing_moves_while_reports_are_stale() -> None:
    demand = Demand(at_s=NOW_S, age_s=60, groups=waiting("c").groups)
    assert shown(acts_of(pool(200), [deployment("c")], [], demand)) == []


def test_a_deployment_whose_load_failed_waits_its_time() -> None:
    acts = resident(
        NOW_S, pool(200), [deployment("c")], [], {}, waiting("c"), seen={}, known=Known(), waits={"c"}
    )
    assert acts == ()


def test_sizes_that_were_measured_win_over_those_declared() -> None:
    status = ScalingStatus(name="c", model="c", pool="p", memory_mib=250)
    known = Known(statuses={"c": status})
    here = [replica("a")]
    deployments = [deployment("a"), deployment("c")]
    assert shown(acts_of(pool(300), deployments, here, waiting("c"), known)) == [("a", None)]
    assert shown(acts_of(pool(300), deployments, here, waiting("c"))) == [("c", ONE)]


def test_a_deployment_without_a_size_fits_nowhere() -> None:
    assert shown(acts_of(pool(300), [deployment("c", None)], [], waiting("c"))) == []


def test_what_is_likely_comes_in_ahead_and_what_idles_may_stay() -> None:
    """No idle time ends a replica here: only others that need its room."""
    known = Known(outlooks={"c": Outlook(0.5, 0.1)})
    acts = acts_of(pool(200), [deployment("a", idle_s=1), deployment("c")], [replica("a")], waiting(), known)
    assert shown(acts) == [("c", ONE)]


def test_a_server_that_keeps_memory_is_drained_and_nothing_comes_in() -> None:
    known = Known(memories={ONE: Memory(None, 60)}, restarts={ONE: "p"})
    deployments = [deployment(name) for name in "abc"]
    here = [replica("a"), replica("b", state="starting")]
    assert leaking(pool(300), known.memories) == {ONE: 60}
    assert shown(acts_of(pool(300), deployments, here, waiting("c"), known)) == [("a", None)]


def test_a_server_nobody_can_restart_goes_on_with_what_is_left() -> None:
    known = Known(memories={ONE: Memory(260, 60)})
    deployments = [deployment(name) for name in "abc"]
    here = [replica("a"), replica("b")]
    acts = acts_of(pool(300, recycle=()), deployments, here, waiting("c", busy=["b.000001"]), known)
    assert shown(acts) == [("a", None)]


def test_a_replica_that_does_not_serve_gives_its_room_back() -> None:
    one = replica("a")
    seen = {one.name: Seen(endpoint="e", ready=False, out_s=100, reason="not ready")}
    acts = plan(NOW_S, pool(300), [deployment("a")], [one], {}, waiting(), seen=seen).acts
    assert [type(act).__name__ for act in acts] == ["GiveUp"]


def test_what_an_operator_drains_may_take_its_time() -> None:
    """Whatever its server still answers would be cut, were it given up like one that has broken."""
    one = replica("a")
    drained = {one.name: Seen(endpoint="e", ready=False, out_s=100, drained=True)}
    acts = plan(NOW_S, pool(300, 300), [deployment("a")], [one], {}, waiting(), seen=drained).acts
    assert acts == ()


def test_a_gateway_that_is_silent_may_have_requests_anywhere() -> None:
    """Nothing makes room for others before it has told, or counts as ended; what is free is used."""
    here = [replica("a"), replica("b")]
    deployments = [deployment(name) for name in "abc"]
    silent = structs.replace(waiting("c"), silent=1)
    assert shown(acts_of(pool(200), deployments, here, waiting("c"))) == [("a", None)]
    assert acts_of(pool(200), deployments, here, silent) == ()
    assert shown(acts_of(pool(200, 200), deployments, here, silent)) == [("c", TWO)]
    leaks = Known(memories={ONE: Memory(None, 60)}, restarts={ONE: "p"})
    assert acts_of(pool(200), deployments, here, silent, leaks) == ()


def test_a_lowered_max_replicas_lets_copies_go_though_there_is_room() -> None:
    """The one with the fewest requests, also while reports are stale: an operator has said so."""
    here = [replica("a"), replica("a", TWO).model_copy(update={"name": "a.000002"})]
    lowered = deployment("a", max_replicas=1)
    busy = waiting(busy=["a.000001"])
    assert shown(acts_of(pool(300, 300), [deployment("a", max_replicas=2)], here, busy)) == []
    for demand in (busy, structs.replace(busy, age_s=None)):
        (act,) = acts_of(pool(300, 300), [lowered], here, demand)
        assert isinstance(act, Drain)
        assert (act.replica.name, act.reason) == ("a.000002", "max_replicas is 1")


def test_never_more_copies_than_max_replicas() -> None:
    wanted = {"a": Wanted(5, "load")}
    status = ScalingStatus(name="a", model="a", pool="p", memory_mib=100)
    for most, copies in ((1, []), (2, [("a", TWO)])):
        given = deployment("a", max_replicas=most)
        acts = resident(
            NOW_S, pool(300, 300), [given], [replica("a")], wanted, waiting("a"), seen={},
            known=Known(statuses={"a": status}),
        )  # fmt: skip
        assert shown(acts) == copies


def test_a_min_replicas_without_room_is_told() -> None:
    kept = deployment("a", min_replicas=2, max_replicas=2)
    seen = {"a.000001": Seen(endpoint="e", ready=True)}
    planned = plan(NOW_S, pool(300), [kept], [replica("a")], {}, waiting(), seen=seen)
    assert planned.acts == ()
    assert "1 in memory, of min_replicas 2" in planned.held_up["a"]


def test_memory_decides_though_its_servers_are_drained() -> None:
    """Numbers would let go what idles there, once nothing else has a budget or nothing is left."""
    one = replica("a")
    seen = {one.name: Seen(endpoint="e", out_s=100, drained=True)}
    drain = ServerDrain(name="d", server=ONE)
    idle, those = {"a": Wanted(0, "idle")}, [deployment("a")]
    assert plan(NOW_S, pool(300), those, [one], idle, waiting(), seen=seen, drains=[drain]).acts == ()
    serves, other = {one.name: Seen(endpoint="e", ready=True)}, ServerDrain(name="d", server=TWO)
    acts = plan(NOW_S, pool(300, None), those, [one], idle, waiting(), seen=serves, drains=[other]).acts
    assert shown(acts) == [("a", None)]


def test_what_is_left_of_a_deleted_deployment_takes_room_until_it_has_left() -> None:
    """Nobody tells any more how much: where it was not measured, it may be all."""
    leaving = replica("gone", state="stopping", mib=None)
    assert shown(acts_of(pool(200), [deployment("c")], [leaving], waiting("c"))) == []
    assert shown(acts_of(pool(200), [deployment("c")], [], waiting("c"))) == [("c", ONE)]


def test_a_deployment_without_weight_comes_in_for_a_rollout_only() -> None:
    spare = deployment("c").model_copy(update={"weight": 0.0})
    assert shown(acts_of(pool(200), [spare], [], waiting("c"))) == []
    wanted = {"c": Wanted(1, "a rollout waits for it")}
    acts = resident(NOW_S, pool(200), [spare], [], wanted, waiting(), seen={}, known=Known())
    assert shown(acts) == [("c", ONE)]


def test_of_two_deployments_of_a_model_the_one_that_is_wanted_comes_in() -> None:
    """The other one comes where that cannot."""
    both = [deployment(name).model_copy(update={"model": "m"}) for name in "ab"]
    wanted = {"a": Wanted(1, "held"), "b": Wanted(0, "held")}

    def brought(*waits: str) -> list[tuple[str, str | None]]:
        return shown(
            resident(
                NOW_S, pool(200, 200), both, [], wanted, waiting("m"), seen={}, known=Known(), waits=waits
            )
        )

    assert brought() == [("a", ONE)]
    assert brought("a") == [("b", ONE)]
