"""What a process counts of its requests: targets, what is forgotten, what waits longest."""

from __future__ import annotations

from datetime import date

import pytest

from inference.request import Usage
from model_registry.cards import Goodput, GoodputCard
from model_registry.entities import Deployment, Endpoint, Model, Scaling, ServerRef
from model_registry.knobs import knobs_of
from model_registry.snapshot import Snapshot
from router.demand import Demanded, Waiting, wanted_for_rows
from router.targets import Target, strictest

MODEL = Model(name="m", context_length=100)
SCALED = Deployment(name="d", model="m", scaling=Scaling(pool="p", ttft_s=0.5))
FIXED = Deployment(name="f", model="m", profile="latency", servers=(ServerRef(http="http://a:1"),))


def test_first_tokens_are_measured_by_the_deployments_target_or_else_the_profiles() -> None:
    demanded = Demanded()
    scaled, fixed = demanded.arrived("m", "balanced", 10), demanded.arrived("m", "latency", 10)
    demanded.retain(Snapshot.of(1, [MODEL, SCALED, FIXED]))
    for ttft_s in (0.4, 0.6):
        scaled.first_token(ttft_s, 2.0)
        fixed.first_token(ttft_s, 2.0)
    groups = demanded.report({}, {}, 0.0).groups
    assert (groups["m:balanced"].ttft_missed, groups["m:balanced"].first_tokens) == (1, 2)
    assert groups["m:latency"].ttft_missed == 0
    assert groups["m:latency"].ttft_s == pytest.approx(1.0)


def test_the_strictest_of_the_deployments_that_share_a_load_holds() -> None:
    """Those that say nothing change nothing; where none does, it is the profile's."""
    knobs = knobs_of("balanced")

    def scaled(**given: float) -> Deployment:
        return Deployment(name="d", model="m", scaling=Scaling(pool="p", **given))

    profile = Target(knobs.ttft_target_s, "profile"), Target(knobs.itl_target_s, "profile")
    assert strictest([FIXED, scaled()], knobs) == profile
    found = strictest([scaled(ttft_s=9.0), scaled(ttft_s=7.0, itl_s=0.4), scaled()], knobs)
    assert found == (Target(7.0, "deployment"), Target(0.4, "deployment"))
    goodput = Goodput(
        prompt_tokens=10, output_tokens=10, ttft_s=3.0, itl_s=0.3, requests_per_s=1.0, tokens_per_s=10.0
    )
    card = GoodputCard(
        source="measured", gpu_class="cpu", date=date(2026, 1, 1), prefill_tokens_per_s=1000, overhead_s=0.01,
        step_s=0.02, slots=8, goodput=goodput,
    )  # fmt: skip
    carded = scaled(itl_s=0.2).model_copy(update={"card": card})
    assert strictest([carded], knobs) == (Target(3.0, "card"), Target(0.2, "deployment"))


def test_the_oldest_is_whoever_waits_longest_now() -> None:
    group = Demanded().arrived("m", "balanced", 10)
    first, second = Waiting(1.0, 5), Waiting(2.0, 7)
    for waiting in (first, second):
        group.enter(waiting)
        group.hold(waiting, held=True)
    assert (group.told(4.0).oldest_s, group.told(4.0).held, group.told(4.0).waiting_tokens) == (3.0, 2, 12)
    group.hold(second, held=False)
    group.leave(first)
    assert (group.told(4.0).oldest_s, group.told(4.0).held, group.told(4.0).waiting) == (2.0, 0, 1)


def test_models_that_are_gone_are_forgotten_once_nothing_of_them_is_under_way() -> None:
    demanded = Demanded()
    group = demanded.arrived("gone", "balanced", 10)
    demanded.retain(Snapshot.of(1, [MODEL]))
    assert demanded.report({}, {}, 0.0).groups["gone:balanced"].arrivals == 1
    group.finished(Usage(10, None))
    demanded.retain(Snapshot.of(1, [MODEL]))
    assert demanded.report({}, {}, 0.0).groups == {}


def test_models_that_are_not_up_are_wanted_for_rows_of_batch_jobs() -> None:
    """Where a deployment scales, under its profile; not where an endpoint is up, or nothing scales."""
    up = Endpoint(
        name="d@a:1", deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
        http="http://a:1", state="ready",
    )  # fmt: skip
    down = up.model_copy(update={"state": "unhealthy"})
    off = up.model_copy(update={"weight": 0.0})
    for objects, wanted in (
        ([SCALED], {("m", "balanced")}),
        ([SCALED, FIXED, down], {("m", "balanced")}),
        ([SCALED, off], {("m", "balanced")}),
        ([SCALED, up], set()),
        ([FIXED], set()),
    ):
        assert wanted_for_rows(Snapshot.of(1, [MODEL, *objects]), ["m", ""], "throughput") == wanted
    demanded = Demanded()
    demanded.arrived("m", "balanced", 10)
    demanded.for_rows = {("m", "balanced"), ("n", "throughput")}
    groups = demanded.report({}, {}, 0.0).groups
    assert [(one.held, one.waiting, one.arrivals) for one in groups.values()] == [(1, 1, 1), (1, 1, 0)]
