"""What the autoscaler asks for, from values as the registry and gateways have them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from controller.scaling.autoscaler import Autoscaler
from controller.scaling.budget import Claim, shared
from controller.scaling.lending import Side, lent
from controller.scaling.wanted import Wanted
from model_registry.cards import GoodputCard
from model_registry.demand.demand import Demand, EndpointDemand, GroupDemand
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
from model_registry.replicas import Replica
from model_registry.rollouts import Rollout, RolloutStatus
from model_registry.snapshot import Snapshot, Stored

CARD = GoodputCard(
    source="measured",
    gpu_class="cpu",
    date=datetime.date(2026, 1, 1),
    prefill_tokens_per_s=10_000,
    overhead_s=0.01,
    step_s=0.02,
    slots=8,
)
"""With prompts of 100 and answers of 50 tokens: 8 requests in 1.08 s."""


def deployment(name: str = "chat", **more: Any) -> Deployment:
    scaling = {"pool": "gpus", "max_replicas": 10, **more.pop("scaling", {})}
    return Deployment(name=name, model="m", card=CARD, scaling=Scaling(**scaling), **more)


def replica(name: str, of: str = "chat", **more: Any) -> Replica:
    state = more.pop("state", "ready")
    return Replica(name=name, deployment=of, model="m", pool="gpus", state=state, **more)


def snapshot(*objects: Stored, **pool: Any) -> Snapshot:
    gpus = Pool(name="gpus", actuator=DryRunActuator(type="dry-run"), **pool)
    return Snapshot.of(1, (Model(name="m", context_length=4096), gpus, *objects))


def demand(at_s: float, arrivals: int = 0, **more: Any) -> Demand:
    tokens = {"prompt_tokens": 100 * arrivals, "output_tokens": 50 * arrivals, "ended": arrivals}
    tokens["first_tokens"] = arrivals
    endpoints = more.pop("endpoints", {})
    age_s = more.pop("age_s", 0.5)
    group = GroupDemand(arrivals=arrivals, **tokens, **more)
    return Demand(at_s=at_s, age_s=age_s, workers=1, groups={"m:balanced": group}, endpoints=endpoints)


def side(**more: Any) -> Side:
    fields = {"up": more["ready"], "least": 1, "held": 0, "load": 0.5, "requests_per_s": 10.0, **more}
    return Side(**fields)


def run(rate: float, seconds: int, *objects: Stored, autoscaler: Autoscaler | None = None) -> Wanted:
    """Looks once per second at so many arrivals each; the last answer."""
    autoscaler = autoscaler or Autoscaler()
    seen = snapshot(*objects)
    for second in range(seconds + 1):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, int(rate * second)))
    return wanted["chat"]


def test_replicas_follow_the_load() -> None:
    one = replica("chat.1")
    assert run(2, 120, deployment(), one).replicas == 1
    assert 5 <= run(30, 120, deployment(), one).replicas <= 7
    assert run(1000, 120, deployment(), one).replicas == 10


def test_every_signal_says_what_it_is() -> None:
    signals = {one.name: one for one in run(30, 120, deployment(), replica("chat.1")).signals}
    assert abs(signals["load"].value - 30 * 1.08 / 8) < 0.2
    assert (signals["load"].unit, signals["load"].source) == ("replicas", "gateways")
    assert signals["load"].age_s == 0.5


def test_nothing_leaves_on_stale_or_missing_reports() -> None:
    three = [replica(f"chat.{n}") for n in range(3)]
    seen = snapshot(deployment(scaling={"min_replicas": 0, "idle_s": 1}), *three)
    autoscaler = Autoscaler()
    for second in range(0, 2000, 20):
        silent = Demand(at_s=1000.0 + second, age_s=None)
        assert autoscaler.look(1000.0 + second, seen, silent)["chat"].replicas == 3
        old = demand(1000.0 + second, age_s=60.0)
        assert autoscaler.look(1000.0 + second, seen, old)["chat"].replicas == 3


def test_the_last_one_goes_when_nobody_has_asked_for_long() -> None:
    idle = deployment(scaling={"min_replicas": 0, "idle_s": 100})
    assert run(0, 90, idle, replica("chat.1")).replicas == 1
    assert run(0, 110, idle, replica("chat.1")).replicas == 0


def test_a_held_request_brings_the_first_one_at_once() -> None:
    autoscaler, seen = Autoscaler(), snapshot(deployment(scaling={"min_replicas": 0}))
    autoscaler.look(1000.0, seen, demand(1000.0))
    wanted = autoscaler.look(1000.1, seen, demand(1000.1, 1, waiting=1, held=1))["chat"]
    assert wanted.replicas == 1
    assert "held" in wanted.reason


def test_a_request_that_another_model_answers_brings_the_first_one_up_too() -> None:
    """It arrives and is refused; nothing is ever held."""
    autoscaler, seen = Autoscaler(), snapshot(deployment(scaling={"min_replicas": 0}))
    autoscaler.look(1000.0, seen, demand(1000.0))
    assert autoscaler.look(1001.0, seen, demand(1001.0, 1, refused=1))["chat"].replicas == 1


def test_the_least_useful_leave_first() -> None:
    def at(port: int) -> ServerRef:
        return ServerRef(http=f"http://h:{port}")

    replicas = [
        replica("chat.busy", server=at(1), created=1),
        replica("chat.idle", server=at(2), created=2),
        replica("chat.idler", server=at(3), created=3),
        replica("chat.coming", state="starting", created=4),
        replica("chat.going", state="draining", server=at(5), created=5),
    ]
    endpoints = {f"chat@h:{n}": EndpointDemand(requests=5 if n == 1 else 0) for n in (1, 2, 3)}
    seen = snapshot(deployment(), *replicas)
    wanted = Autoscaler().look(1000.0, seen, demand(1000.0, endpoints=endpoints))["chat"]
    assert wanted.leaving == ("chat.coming", "chat.idler", "chat.idle", "chat.busy")


def test_a_pool_has_only_so_much_room() -> None:
    autoscaler = Autoscaler()
    other = deployment("other", profile="latency", scaling={"min_replicas": 2})
    seen = snapshot(deployment(), other, replica("chat.1"), max_replicas=4)
    for second in range(61):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 30 * second))
    assert (wanted["chat"].replicas, wanted["other"].replicas) == (2, 2)
    assert "gpus" in wanted["chat"].reason


def test_the_cheaper_pool_grows_first() -> None:
    """Per request: a replica of twice the speed for three times the money is the dearer one."""
    fast = CARD.model_copy(update={"slots": 16})
    dear = Pool(name="dear", actuator=DryRunActuator(type="dry-run"), cost_per_hour=3.0)
    quick = Deployment(
        name="quick", model="m", card=fast, scaling=Scaling(pool="dear", min_replicas=0, max_replicas=5)
    )
    objects = (deployment(scaling={"max_replicas": 3}), quick, dear, replica("chat.1"))
    autoscaler, seen = Autoscaler(), snapshot(*objects)
    for second in range(121):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 40 * second))
    assert wanted["chat"].replicas == 3
    assert 1 <= wanted["quick"].replicas <= 3


def test_servers_that_stand_anyway_carry_their_part() -> None:
    standing = Deployment(
        name="own", model="m", card=CARD, servers=tuple(ServerRef(http=f"http://o:{n}") for n in (1, 2, 3))
    )
    alone = run(30, 120, deployment(), replica("chat.1")).replicas
    assert run(30, 120, deployment(), standing, replica("chat.1")).replicas == alone - 3


def test_a_start_that_was_seen_counts_for_the_next() -> None:
    slow = [replica(f"chat.{n}", cold_start_s=100.0 + n, created=float(n)) for n in range(3)]
    signals = {one.name: one.value for one in run(5, 5, deployment(), *slow).signals}
    assert signals["cold_start"] == 101
    signals = {one.name: one.value for one in run(5, 5, deployment(), replica("chat.1")).signals}
    assert signals["cold_start"] == 60


def test_counts_that_fall_are_no_load() -> None:
    """A report that was lost with its Redis must not look like a rush."""
    autoscaler, seen = Autoscaler(), snapshot(deployment(), replica("chat.1"))
    for second in range(60):
        autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 100_000 + second))
    for second in range(60, 120):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 50_000 + second))
        assert wanted["chat"].replicas == 1


def two_profiles(at_s: float, balanced: int, throughput: int) -> Demand:
    first = demand(at_s, balanced)
    second = demand(at_s, throughput).groups["m:balanced"]
    return Demand(at_s=at_s, age_s=0.5, workers=1, groups={**first.groups, "m:throughput": second})


def test_a_profile_that_is_hardly_asked_for_is_served_by_another() -> None:
    batch = deployment("batch", profile="throughput", scaling={"min_replicas": 0})
    objects = (batch, deployment(), *(replica(f"chat.{n}") for n in range(3)))
    for lends, expected in ((True, 0), (False, 1)):
        changed = batch.model_copy(
            update={"scaling": batch.scaling and batch.scaling.model_copy(update={"lends": lends})}
        )
        autoscaler, seen = Autoscaler(), snapshot(changed, *objects[1:])
        for second in range(121):
            wanted = autoscaler.look(
                1000.0 + second, seen, two_profiles(1000.0 + second, 6 * second, second // 2)
            )
        assert wanted["batch"].replicas == expected
    assert "served under balanced" not in wanted["batch"].reason


@pytest.mark.parametrize(
    ("lender", "borrower", "expected"),
    [
        (side(wanted=2, ready=4), side(wanted=3, ready=1), (4, 1)),
        (side(wanted=2, ready=3), side(wanted=3, ready=1), (3, 2)),
        (side(wanted=3, ready=3), side(wanted=3, ready=1), (3, 3)),
        (side(wanted=2, ready=4), side(wanted=3, ready=1, spills_when_full=False), (2, 3)),
        (side(wanted=2, ready=4, requests_per_s=20.0), side(wanted=3, ready=1), (3, 1)),
    ],
)
def test_replicas_that_would_go_stay_for_a_profile_that_would_start_some(
    lender: Side, borrower: Side, expected: tuple[int, int]
) -> None:
    now = lent({"latency": lender, "throughput": borrower._replace(spills_to=("latency",))})
    assert (now["latency"].wanted, now["throughput"].wanted) == expected
    assert bool(now["latency"].reason) == (expected != (lender.wanted, borrower.wanted))


def test_a_pool_is_shared_by_what_each_wants() -> None:
    claims = {"a": Claim(1, 8), "b": Claim(1, 4), "c": Claim(0, 0)}
    assert shared(None, claims) == {"a": 8, "b": 4, "c": 0}
    assert shared(6, claims) == {"a": 4, "b": 2, "c": 0}
    assert shared(1, claims) == {"a": 1, "b": 0, "c": 0}
    assert shared(0, claims) == {"a": 0, "b": 0, "c": 0}


def test_requests_of_a_time_without_reports_are_not_taken_for_a_sudden_load() -> None:
    """Counts survive an outage of Redis; what they grew by came over minutes, not within the next bucket."""
    autoscaler, two = Autoscaler(), [replica("chat.1"), replica("chat.2")]
    before = run(10, 200, deployment(), *two, autoscaler=autoscaler).replicas
    seen, most = snapshot(deployment(), *two), 0
    autoscaler.look(1260.0, seen, Demand(at_s=1260.0, age_s=None))
    for second in range(261, 300):
        most = max(
            most,
            autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 10 * second))["chat"].replicas,
        )
    assert most == before


def test_a_controller_that_leads_again_after_a_while_begins_anew() -> None:
    """Nobody told it that replicas were enough meanwhile."""
    autoscaler, three = Autoscaler(), [replica(f"chat.{n}") for n in range(3)]
    run(2, 190, deployment(), *three, autoscaler=autoscaler)
    seen = snapshot(deployment(), *three)
    for second in range(3000, 3100):
        told = demand(1000.0 + second, 2 * second)
        assert autoscaler.look(1000.0 + second, seen, told)["chat"].replicas == 3


def test_looks_may_be_rare() -> None:
    autoscaler, seen = Autoscaler(), snapshot(deployment(), replica("chat.1"))
    for second in range(0, 1200, 120):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 30 * second))["chat"]
    assert 5 <= wanted.replicas <= 7


def test_a_clock_that_is_set_back_makes_no_load() -> None:
    """Redis' time is another machine's after a fail-over: what came meanwhile is not that of one bucket."""
    autoscaler, two = Autoscaler(), [replica("chat.1"), replica("chat.2")]
    before = run(10, 200, deployment(), *two, autoscaler=autoscaler).replicas
    seen = snapshot(deployment(), *two)
    for second in range(201, 300):
        told = demand(940.0 + second, 10 * second)
        assert autoscaler.look(940.0 + second, seen, told)["chat"].replicas == before


def test_time_without_reports_is_not_idle_time() -> None:
    autoscaler, seen = (
        Autoscaler(),
        snapshot(deployment(scaling={"min_replicas": 0, "idle_s": 100}), replica("chat.1")),
    )
    for second in range(50):
        autoscaler.look(1000.0 + second, seen, demand(1000.0 + second))
    for second in range(50, 2000, 5):
        autoscaler.look(1000.0 + second, seen, Demand(at_s=1000.0 + second, age_s=None))
    for second in range(2000, 2090):
        assert autoscaler.look(1000.0 + second, seen, demand(1000.0 + second))["chat"].replicas == 1
    for second in range(2090, 2110):
        last = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second))["chat"]
    assert last.replicas == 0


ROLLOUT = Rollout(name="r", model="m", stable="chat", candidate="better")


def under_way(**more: Any) -> RolloutStatus:
    return RolloutStatus(name="r", model="m", stable="chat", candidate="better", **more)


def tried(status: RolloutStatus | None, *, weight: float = 0.0) -> dict[str, int]:
    """What is wanted of both sides of a rollout whose candidate would be the cheaper one."""
    autoscaler = Autoscaler()
    better = deployment("better", weight=weight, scaling={"min_replicas": 0}).model_copy(
        update={"card": CARD.model_copy(update={"step_s": 0.01})}
    )
    seen = snapshot(deployment(), better, replica("chat.1"), ROLLOUT, *([] if status is None else [status]))
    for second in range(121):
        wanted = autoscaler.look(1000.0 + second, seen, demand(1000.0 + second, 30 * second))
    return {name: one.replicas for name, one in wanted.items()}


def test_a_deployment_without_weight_takes_no_part_in_the_load() -> None:
    """Whatever it would cost: it serves nobody, so that those that do must be enough."""
    rolled_back = tried(under_way(phase="rolled_back"))
    assert 5 <= rolled_back["chat"] <= 7
    assert rolled_back["better"] == 0
    assert tried(None, weight=1.0)["better"] > 0


def test_a_rollout_finds_replicas_for_what_its_next_step_sends() -> None:
    pending, first = tried(None), tried(under_way(phase="canary", step=0, share=0.01))
    shadow = tried(under_way(phase="shadow", copies=1.0))
    assert (pending["better"], shadow["better"], first["better"]) == (1, 1, 1)
    half, last = (tried(under_way(phase="canary", step=step)) for step in (4, 5))
    assert 1 < half["better"] < last["better"]
    assert last["better"] <= last["chat"] <= 7
