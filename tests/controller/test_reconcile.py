"""What is wanted and what was seen decide what is changed, with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from controller.desired import DEFAULT_CONCURRENCY, Desired, desired_endpoints
from controller.observe import Observation
from controller.reconcile import WANTED_AGAIN, Action, Move, Register, reconcile
from model_registry.cards import GoodputCard
from model_registry.drains import Drain
from model_registry.entities import Deployment, Endpoint, EndpointState, LaneName, ServerRef


@dataclass
class Recognised:
    lane: LaneName = "tensorrt_llm"
    target: str = "tensorrt_llm"
    max_concurrency: int | None = 48
    details: dict[str, Any] = field(default_factory=lambda: {"lane": "tensorrt_llm"})
    emulated: bool = False

    def as_dict(self) -> dict[str, Any]:
        return self.details


SERVER = ServerRef(http="http://a:8000", grpc="a:8001")
DEPLOYMENT = Deployment(name="d", model="m", target="ensemble", servers=(SERVER,))
WANTED = Desired(DEPLOYMENT, SERVER)
NAME = "d@a:8000"
READY = WANTED.endpoint(Recognised()).model_copy(update={"state": "ready"})
SEEN = Observation(True, schema=Recognised())
PROBED = Observation(True)
FAILED = Observation(False, "it does not answer")


def decide(
    seen: Observation | None, present: Endpoint | None, *, failures: int = 1, wanted: Desired | None = WANTED
) -> list[Action]:
    return reconcile(
        {NAME: wanted} if wanted else {},
        {NAME: seen} if seen else {},
        {NAME: present} if present else {},
        {NAME: failures},
        2,
    )


def in_state(state: EndpointState, reason: str | None = None) -> Endpoint:
    return READY.model_copy(update={"state": state, "reason": reason})


def test_every_server_of_every_deployment_is_wanted() -> None:
    other = DEPLOYMENT.model_copy(update={"name": "e", "servers": (SERVER, ServerRef(http="https://b"))})
    assert list(desired_endpoints([DEPLOYMENT, other])) == ["d@a:8000", "e@a:8000", "e@b:443"]


def test_a_stated_block_size_wins_over_the_engines_and_is_taken_over_when_it_changes() -> None:
    stated = Desired(DEPLOYMENT.model_copy(update={"tokens_per_block": 32}), SERVER)
    endpoint = stated.endpoint(Recognised(details={"tokens_per_block": 64}))
    assert endpoint.server_schema["tokens_per_block"] == 32
    assert stated.is_met_by(endpoint)
    assert WANTED.is_met_by(endpoint)
    changed = Desired(DEPLOYMENT.model_copy(update={"tokens_per_block": 16}), SERVER)
    assert not changed.is_met_by(endpoint)


def test_names_keep_paths_and_ipv6_apart() -> None:
    servers = (ServerRef(http="http://[::1]:8000/one/"), ServerRef(http="http://[::1]:8000/two"))
    both = DEPLOYMENT.model_copy(update={"servers": servers})
    assert list(desired_endpoints([both])) == ["d@[::1]:8000/one", "d@[::1]:8000/two"]


def test_a_recognised_and_healthy_server_becomes_a_ready_endpoint() -> None:
    (action,) = decide(SEEN, None)
    assert isinstance(action, Register)
    endpoint = action.endpoint
    assert (endpoint.state, endpoint.lane, endpoint.target) == ("ready", "tensorrt_llm", "tensorrt_llm")
    assert (endpoint.max_concurrency, endpoint.asked_target, endpoint.grpc) == (48, "ensemble", "a:8001")


@pytest.mark.parametrize(("own", "engine", "expected"), [(7, 48, 7), (None, 48, 48), (None, None, 64)])
def test_concurrency_is_the_deployments_the_engines_or_the_default(
    own: int | None, engine: int | None, expected: int
) -> None:
    deployment = DEPLOYMENT.model_copy(update={"max_concurrency": own})
    endpoint = Desired(deployment, SERVER).endpoint(Recognised(max_concurrency=engine))
    assert endpoint.max_concurrency == expected
    assert DEFAULT_CONCURRENCY == 64


def test_a_ready_endpoint_that_stays_healthy_is_left_alone() -> None:
    assert decide(PROBED, READY) == []
    assert decide(SEEN, READY) == []
    assert decide(None, READY) == []


def test_a_server_never_reached_is_starting_with_the_reason() -> None:
    (action,) = decide(FAILED, None)
    assert isinstance(action, Register)
    assert (action.endpoint.state, action.endpoint.reason) == ("starting", "it does not answer")
    assert decide(FAILED, action.endpoint) == []


def test_an_unknown_schema_is_shown_as_unhealthy_with_what_was_found() -> None:
    seen = Observation(False, "no input_ids among: x, y", schema_error=True)
    (action,) = decide(seen, None)
    assert isinstance(action, Register)
    assert (action.endpoint.state, action.endpoint.reason) == ("unhealthy", "no input_ids among: x, y")
    assert decide(seen, action.endpoint) == []


def test_one_failure_is_forgiven_and_the_second_is_not() -> None:
    assert decide(FAILED, READY, failures=1) == []
    assert decide(FAILED, READY, failures=2) == [Move(NAME, "unhealthy", "it does not answer")]


def test_another_reason_is_shown_and_the_same_one_is_not_written_again() -> None:
    assert decide(FAILED, in_state("unhealthy", "old")) == [Move(NAME, "unhealthy", "it does not answer")]
    assert decide(FAILED, in_state("unhealthy", "it does not answer")) == []


def test_an_unhealthy_endpoint_comes_back_with_the_schema_it_has_now() -> None:
    (action,) = decide(Observation(True, schema=Recognised(max_concurrency=8)), in_state("unhealthy", "x"))
    assert isinstance(action, Register)
    assert (action.endpoint.state, action.endpoint.reason) == ("ready", None)
    assert action.endpoint.max_concurrency == 8


@pytest.mark.parametrize(
    "change",
    [
        {"profile": "latency"},
        {"target": "other"},
        {"max_concurrency": 3},
        {"lane": "llmapi"},
        {"transport": "grpc"},
        {"model": "n"},
        {"labels": {"region": "eu"}},
        {"weight": 0.05},
    ],
)
def test_a_changed_deployment_is_not_met_by_the_old_endpoint(change: dict[str, Any]) -> None:
    changed = Desired(DEPLOYMENT.model_copy(update=change), SERVER)
    assert WANTED.is_met_by(READY)
    assert not changed.is_met_by(READY)


def test_an_endpoint_carries_the_labels_and_the_weight_of_its_deployment() -> None:
    changed = DEPLOYMENT.model_copy(update={"labels": {"region": "eu"}, "weight": 0.05})
    endpoint = Desired(changed, SERVER).endpoint()
    assert (endpoint.labels, endpoint.weight) == ({"region": "eu"}, 0.05)


def test_a_changed_deployment_that_cannot_be_met_takes_the_endpoint_out_at_once() -> None:
    changed = Desired(DEPLOYMENT.model_copy(update={"target": "nothing"}), SERVER)
    (action,) = decide(Observation(False, "no model 'nothing'"), READY, failures=1, wanted=changed)
    assert isinstance(action, Register)
    assert (action.endpoint.state, action.endpoint.asked_target) == ("unhealthy", "nothing")


def test_an_endpoint_nobody_wants_drains_once() -> None:
    (action,) = decide(None, READY, wanted=None)
    assert (action.name, isinstance(action, Move) and action.state) == (NAME, "draining")
    assert decide(None, in_state("draining"), wanted=None) == []


def test_a_draining_endpoint_that_is_wanted_again_is_registered_anew() -> None:
    (action,) = decide(SEEN, in_state("draining"))
    assert isinstance(action, Move)
    assert action.state == "gone"


CARD = GoodputCard(
    source="planned",
    gpu_class="l40s",
    date=date(2026, 11, 28),
    prefill_tokens_per_s=9_000,
    overhead_s=0.1,
    step_s=0.03,
    slots=24,
)


def test_a_card_goes_with_the_endpoint_and_stands_in_for_slots_that_nobody_states() -> None:
    """A changed card is registered anew; the engine's own word on its slots wins over it."""
    carded = Desired(DEPLOYMENT.model_copy(update={"card": CARD}), SERVER)
    assert carded.endpoint(Recognised()).card == CARD
    assert carded.endpoint(Recognised()).max_concurrency == 48
    assert carded.endpoint(Recognised(max_concurrency=None)).max_concurrency == 24
    stated = Desired(carded.deployment.model_copy(update={"max_concurrency": 5}), SERVER)
    assert stated.endpoint(Recognised(max_concurrency=None)).max_concurrency == 5
    [action] = decide(SEEN, READY, wanted=carded)
    assert isinstance(action, Register)
    assert action.endpoint.card == CARD
    assert not decide(PROBED, action.endpoint, wanted=carded)


@pytest.mark.parametrize(
    "drain",
    [
        Drain(name="x", server="http://a:8000/", reason="new driver"),
        Drain(name="x", endpoint=NAME, reason="new driver"),
    ],
)
def test_what_an_operator_drains_stays_registered_as_that_until_they_take_it_back(drain: Drain) -> None:
    other = DEPLOYMENT.model_copy(update={"name": "e", "servers": (ServerRef(http="http://b:8000"),)})
    wanted = desired_endpoints([DEPLOYMENT, other], drains=[drain])
    assert wanted["e@b:8000"].drained is None
    (action,) = decide(PROBED, READY, wanted=wanted[NAME])
    assert action == Move(NAME, "draining", "new driver")
    drained = in_state("draining", "new driver")
    for seen in (None, PROBED, FAILED):
        assert decide(seen, drained, wanted=wanted[NAME]) == []
    assert decide(SEEN, None, wanted=wanted[NAME]) == []
    assert decide(None, drained) == [Move(NAME, "gone", WANTED_AGAIN)]
