"""What the autoscaler asks for, from values as the registry and gateways have them."""

from __future__ import annotations

import datetime
from typing import Any

from controller.scaling.autoscaler import Autoscaler
from controller.scaling.wanted import Wanted
from model_registry.cards import GoodputCard
from model_registry.demand.demand import Demand, EndpointDemand, GroupDemand
from model_registry.entities import Deployment, Model, Scaling, ServerRef
from model_registry.pools import DryRunActuator, Pool
from model_registry.replicas import Replica
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
