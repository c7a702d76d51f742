"""What clients' own requests tell of both sides: attempts by side, and times in pairs of a kind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.entry import Entry
from gateway.shadow.canary import Canary
from inference.request import Usage
from model_registry.entities import Endpoint
from model_registry.rolling import Rolling
from model_registry.rollout_evidence.evidence import Evidence
from model_registry.rollouts import Phase, RolloutStatus
from model_registry.snapshot import Snapshot
from telemetry.request_trace import AttemptTrace


def rolling(phase: Phase = "canary", lane: str = "tensorrt_llm") -> Rolling:
    status = RolloutStatus(name="r", model="m", stable="old", candidate="new", phase=phase, step=1, share=0.5)
    known = {"model": "m", "profile": "balanced", "target": "m", "http": "http://a:1", "state": "ready"}
    endpoints = [
        Endpoint.model_validate({"name": "old@a", "deployment": "old", "lane": "tensorrt_llm", **known}),
        Endpoint.model_validate({"name": "new@a", "deployment": "new", "lane": lane, **known}),
    ]
    return Snapshot.of(1, [*endpoints, status]).rolling["m"]


def attempt(
    deployment: str, error: str | None = None, total_s: float = 1.1, ttft_s: float = 0.1
) -> AttemptTrace:
    found = AttemptTrace(f"{deployment}@a", "tensorrt_llm", "m", "s", None)
    found.start_ns, found.end_ns = 0, round(total_s * 1e9)
    found.first_token_ns, found.error = round(ttft_s * 1e9), error
    return found


def entry(*attempts: AttemptTrace, prompt: int = 100, status: int = 200, stream: bool = True) -> Entry:
    """A request that is over: what `Canary` reads of one."""
    told: Any = SimpleNamespace(
        trace=SimpleNamespace(attempts=list(attempts)), status=status,
        usage=Usage(prompt, 11), api=SimpleNamespace(stream=stream),
    )  # fmt: skip
    return cast("Entry", told)


def test_every_attempt_counts_for_its_own_side() -> None:
    """Also one that failed before another one answered; not one that was only busy, or cut by its client."""
    evidence, canary = Evidence(0), Canary()
    canary.saw(entry(attempt("new", "unreachable"), attempt("old")), rolling(), evidence)
    canary.saw(entry(attempt("new", "busy"), attempt("old")), rolling(), evidence)
    canary.saw(entry(attempt("new", "cancelled")), rolling(), evidence)
    canary.saw(entry(attempt("elsewhere")), rolling(), evidence)
    step = evidence.step(1)
    assert (step.candidate.of, step.candidate.found) == (1, 1)
    assert (step.stable.of, step.stable.found) == (2, 0)
    assert (evidence.requests, evidence.exposed) == (4, 3)


def test_times_are_held_against_the_latest_of_the_other_side_once() -> None:
    evidence, canary = Evidence(0), Canary()
    canary.saw(entry(attempt("old", total_s=9.0)), rolling(), evidence)
    canary.saw(entry(attempt("old", total_s=1.1)), rolling(), evidence)
    for _ in range(2):
        canary.saw(entry(attempt("new", total_s=2.1, ttft_s=0.2)), rolling(), evidence)
    step = evidence.step(1)
    assert step.pace.count == step.ttft.count == 1
    assert step.pace.quantile(0.5) == pytest.approx(1.9, rel=0.01)
    assert step.ttft.quantile(0.5) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("other", [{"prompt": 5000}, {"stream": False}, {"status": 500}])
def test_only_requests_of_a_kind_are_held_against_each_other(other: dict[str, Any]) -> None:
    evidence, canary = Evidence(0), Canary()
    canary.saw(entry(attempt("old"), **other), rolling(), evidence)
    canary.saw(entry(attempt("new")), rolling(), evidence)
    assert evidence.step(1).pace.count == 0


def test_across_kinds_of_servers_first_tokens_are_not_compared() -> None:
    evidence, canary = Evidence(0), Canary()
    for side in ("old", "new"):
        canary.saw(entry(attempt(side)), rolling(lane="openai-http"), evidence)
    assert (evidence.step(1).ttft.count, evidence.step(1).pace.count) == (0, 1)


def test_before_the_canary_requests_are_counted_only() -> None:
    evidence, canary = Evidence(0), Canary()
    canary.saw(entry(attempt("old")), rolling("shadow"), evidence)
    assert (evidence.requests, evidence.exposed, evidence.steps) == (1, 0, {})
