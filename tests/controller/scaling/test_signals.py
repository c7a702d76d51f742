"""What a decision is said to go by: late tokens count like late first tokens, and silence is never zero."""

from __future__ import annotations

import pytest

from controller.replicas.status import memory_signals
from controller.residency.pool import GpuUse, Memory
from controller.scaling.autoscaler import Autoscaler
from controller.scaling.decide import Fleet, Seen, decide
from controller.scaling.decide import Memory as Known
from controller.scaling.figures import KEPT_S
from model_registry.demand.demand import Demand, EndpointDemand
from model_registry.entities import Endpoint
from model_registry.replicas import Replica, Signal
from tests.controller.scaling.test_autoscaler import demand, deployment, replica, snapshot
from tests.controller.scaling.test_decide import LIMITS


def looked(autoscaler: Autoscaler, reports: Demand, *more: Endpoint) -> dict[str, Signal]:
    seen = snapshot(deployment(), replica("chat.1"), *more)
    return {one.name: one for one in autoscaler.look(reports.at_s, seen, reports)["chat"].signals}


def price(**each: float) -> float:
    """After ten minutes of which each look sees so much."""
    known = Known()
    for second in range(600):
        seen = Seen(1.0, 4.0, busy=4.0, requests=20, **each)
        decision, known = decide(float(second), seen, Fleet(6), LIMITS, known)
    return decision.price


def test_late_tokens_count_like_late_first_tokens() -> None:
    """By the worse of both: a request that misses both is one request."""
    calm, unseen = price(answered=20, late=0), price()
    late_first = price(answered=20, late=2)
    assert calm < unseen < late_first
    assert price(answered=20, late=0, paced=20, slow=2) == late_first
    assert price(answered=20, late=2, paced=20, slow=2) == late_first
    assert price(answered=20, late=2, paced=20, slow=0) == late_first
    assert price(paced=20, slow=2) == late_first


def test_figures_say_what_they_are_of_and_whose() -> None:
    autoscaler = Autoscaler()
    looked(autoscaler, demand(1000.0, 0))
    more = {"ttft_s": 5.0, "ttft_missed": 2, "paced": 8, "itl_s": 0.4, "itl_missed": 4}
    engines = {"engine_timed": 5, "engine_queue_s": 1.0, "engine_prefill_s": 0.5}
    reuse = {"reused_tokens": 300, "reusable_tokens": 400}
    found = looked(autoscaler, demand(1010.0, 10, **more, **engines, **reuse))
    wanted = {
        "ttft": (0.5, "s", "gateways"),
        "late": (0.2, "of first tokens", "gateways"),
        "itl": (0.05, "s", "gateways"),
        "late_between": (0.5, "of answers", "gateways"),
        "engine_queue": (0.2, "s", "engines"),
        "engine_prefill": (0.1, "s", "engines"),
        "kv_reuse": (0.75, "of prompt tokens", "engines"),
        "ttft_target": (2.0, "s", "profile"),
    }
    assert {
        name: (one.value, one.unit, one.source) for name, one in found.items() if name in wanted
    } == wanted
    assert {found[name].age_s for name in wanted if name != "ttft_target"} == {0.5}


def test_a_figure_that_nobody_tells_of_keeps_its_value_and_ages() -> None:
    autoscaler = Autoscaler()
    told = {"paced": 10, "itl_s": 0.5}
    for at_s, arrivals, more in ((1000.0, 0, {}), (1010.0, 10, told)):
        looked(autoscaler, demand(at_s, arrivals, **more))
    for at_s in (1050.0, 1090.0):
        found = looked(autoscaler, demand(at_s, 10, **told))
        assert (found["itl"].value, found["itl"].age_s) == (0.05, at_s - 1010 + 0.5)
        assert "engine_queue" not in found, "no engine has told anything: that is not a queue of 0 s"
    silent = looked(autoscaler, Demand(at_s=1100.0, age_s=None, silent=2))
    assert (silent["itl"].value, silent["itl"].age_s, silent["silent"].value) == (0.05, 90.0, 2)
    assert not silent.keys() & {"load", "in_flight", "waiting", "held", "kv_use"}
    assert "itl" not in looked(autoscaler, demand(1011.0 + KEPT_S, 10, **told))


def test_counts_that_begin_anew_are_no_figures() -> None:
    """A registry that was lost: what is less than before says nothing of what came."""
    autoscaler = Autoscaler()
    looked(autoscaler, demand(1000.0, 50, paced=50, itl_s=2.0))
    assert "itl" not in looked(autoscaler, demand(1010.0, 5, paced=5, itl_s=0.2))
    assert looked(autoscaler, demand(1020.0, 9, paced=9, itl_s=0.6))["itl"].value == 0.1


def test_kv_use_is_of_what_ready_engines_say_they_have() -> None:
    def endpoint(port: int, **more: object) -> Endpoint:
        name = f"chat@h:{port}"
        return Endpoint(
            name=name, deployment="chat", model="m", profile="balanced", lane="tensorrt_llm", target="t",
            http=f"http://h:{port}", **{"state": "ready", "server_schema": {"kv_tokens": 1000}, **more},
        )  # fmt: skip

    loads = {
        "chat@h:1": EndpointDemand(requests=2, prefill_tokens=100, decode_tokens=400),
        "chat@h:2": EndpointDemand(requests=1, decode_tokens=900),
    }
    reports = demand(1000.0, endpoints=loads)
    both = endpoint(1), endpoint(2)
    assert looked(Autoscaler(), reports, *both)["kv_use"].value == 0.7
    gone = endpoint(1), endpoint(2, state="unhealthy")
    found = looked(Autoscaler(), reports, *gone)["kv_use"]
    assert (found.value, found.unit, found.source, found.age_s) == (0.5, "of KV tokens", "gateways", 0.5)
    assert "kv_use" not in looked(Autoscaler(), reports, endpoint(1, server_schema={}))


def test_gpu_memory_is_told_server_by_server() -> None:
    replicas = [
        Replica(name=f"chat.{n}", deployment="chat", model="m", pool="p", place=place)
        for n, place in enumerate(("http://h:2", "http://h:1", "http://h:1", "http://h:3", None))
    ]
    memories = {
        "http://h:1": Memory(None, 0.0, GpuUse(4000.4, 80_000, 2.0)),
        "http://h:2": Memory(100.0, 0.0, GpuUse(100, 200, 3.0)),
        "http://h:3": Memory(),
        "http://h:4": Memory(5.0, 0.0, GpuUse(5, 10, 1.0)),
    }
    found = [(one.server, one.name, one.value, one.age_s) for one in memory_signals(replicas, memories)]
    assert found == [
        ("http://h:1", "gpu_memory_used", 4000, 2.0),
        ("http://h:1", "gpu_memory_total", 80_000, 2.0),
        ("http://h:2", "gpu_memory_used", 100, 3.0),
        ("http://h:2", "gpu_memory_total", 200, 3.0),
    ]


@pytest.mark.parametrize("patience_s", [10.0, 30.0])
def test_how_old_reports_may_be_is_what_is_set(patience_s: float) -> None:
    """By reports 20 s old replicas go where those are believed, and nowhere else."""
    autoscaler, seen = (
        Autoscaler(patience_s),
        snapshot(deployment(), *(replica(f"chat.{n}") for n in range(6))),
    )
    fewest = 6
    for second in range(300):
        at_s = 1000.0 + second
        wanted = autoscaler.look(at_s, seen, demand(at_s, 2 * second, age_s=20.0))["chat"]
        fewest = min(fewest, wanted.replicas)
    assert (fewest < 6) is (patience_s > 20)
    assert ("20 s old" in wanted.reason) is (patience_s < 20)
