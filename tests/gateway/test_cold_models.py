"""What a model that is not up is to the rest of the gateway: its lanes, and what may stand in for it."""

from __future__ import annotations

import pytest

from gateway.api.errors import shape_of
from gateway.fallback import stand_in
from model_registry.entities import Deployment, Endpoint, LaneName, Model, Scaling
from model_registry.snapshot import Snapshot
from model_registry.tenants import Fallback
from router.errors import ColdFullError, ColdModelError
from router.profiles import Wish
from tenancy.policy import EffectivePolicy

MODEL, OTHER = Model(name="m", context_length=10), Model(name="other", context_length=10)


def scaled(lane: LaneName | None) -> Deployment:
    fields = {} if lane is None else {"lane": lane}
    return Deployment.model_validate({"name": "d", "model": "m", "scaling": Scaling(pool="p"), **fields})


def test_lanes_of_a_model_that_is_not_up_are_those_its_deployments_name() -> None:
    """So that a request is parsed for who will serve it; `auto` names none."""
    up = Endpoint(
        name="e", deployment="d", model="m", profile="balanced", lane="tensorrt_llm", target="m",
        http="http://a:1",
    )  # fmt: skip
    assert Snapshot.of(1, [MODEL, scaled("openai-http")]).lanes["m"] == {"openai-http"}
    assert Snapshot.of(1, [MODEL, scaled(None)]).lanes["m"] == frozenset()
    assert Snapshot.of(1, [MODEL, scaled("openai-http"), up]).lanes["m"] == {"tensorrt_llm"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(ColdModelError("m", 12.2), "model_loading"), (ColdFullError("m", 12.2), "cold_queue_full")],
)
def test_refusals_say_when_the_model_is_expected_and_let_another_one_answer(
    error: ColdModelError, code: str
) -> None:
    shape = shape_of(error)
    assert (shape.status, shape.code, shape.retry_after_s) == (503, code, 13)
    assert "Try again in 13 s" in str(shape.message)
    policy = EffectivePolicy("t", fallbacks=(Fallback(causes=("no_endpoints",), to="other"),))
    found = stand_in(Snapshot.of(1, [MODEL, OTHER]), policy, Wish(MODEL, "balanced", "default"), {"m"}, error)
    assert found is not None
    assert (found.wish.name, found.header) == ("other", b"x-enginehouse-fallback: m>other;no_endpoints\r\n")
