"""Listings fit a terminal without cutting what the next command needs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from enginehouse.errors import ApiError, report
from enginehouse.listing import as_table, describe
from enginehouse.objects import Objects
from model_registry.entities import Deployment, Scaling, ServerRef
from model_registry.pools import Pool
from model_registry.replicas import Replica, ScalingStatus

NAME = "llama-3.1-8b-throughput@triton-0.example:8000"


def _endpoint(**more: Any) -> dict[str, Any]:
    fields = ("model", "profile", "lane", "target", "max_concurrency", "state", "reason")
    return {"name": NAME, **dict.fromkeys(fields), "model": "llama-3.1-8b", "state": "ready", **more}


def _shown(*endpoints: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(as_table(Objects("Endpoint", list(endpoints), None)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_name_is_never_cut() -> None:
    """Long reasons are folded into further lines instead."""
    reason = "http://triton-0.example:8000 answers neither of the two health paths"
    shown = _shown(_endpoint(lane="tensorrt_llm", target="tensorrt_llm", profile="throughput", reason=reason))
    assert NAME in shown
    assert "…" not in shown


def test_a_column_that_says_nothing_is_left_out() -> None:
    """A reason is a column once one endpoint has a reason."""
    assert "reason" not in _shown(_endpoint())
    assert "reason" in _shown(_endpoint(), _endpoint(reason="starts"))


def test_described_tensors_take_one_line_each_and_nothing_empty_is_shown() -> None:
    """The schema of a server is read by people."""
    schema = {"lane": "llmapi", "bare_target": None, "inputs": {"text_input": ["BYTES", [-1]]}}
    shown = describe(Objects("Endpoint", [_endpoint(server_schema=schema)], None), [])
    assert "text_input: BYTES [-1]" in shown
    assert "bare_target" not in shown
    assert "null" not in shown


def test_each_further_mistake_stands_below_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """And the remedy below them."""
    report(ApiError("a.yaml:1: kind: is required\na.yaml:4: spec: is required", "see examples/"))
    assert capsys.readouterr().err.splitlines() == [
        "error: a.yaml:1: kind: is required",
        "       a.yaml:4: spec: is required",
        "  see examples/",
    ]


def _table(*items: Pool | Replica | Deployment | ScalingStatus) -> str:
    console = Console(file=io.StringIO(), width=120)
    kind = type(items[0]).__name__
    console.print(as_table(Objects(kind, [one.model_dump(mode="json") for one in items], None)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_pools_are_told_by_who_runs_their_replicas() -> None:
    """In a few words; `describe` shows the rest."""
    actuators: tuple[dict[str, Any], ...] = (
        {"type": "triton", "servers": [{"http": "http://t:8000"}]},
        {"type": "process", "command": ["vllm", "serve"]},
        {"type": "docker", "image": "triton:26.07"},
        {"type": "kubernetes", "workload": "chat"},
        {"type": "dry-run"},
    )
    shown = _table(
        *(Pool.model_validate({"name": f"p{n}", "actuator": one}) for n, one in enumerate(actuators))
    )
    told = ["triton: 1 server", "process: vllm", "docker: triton:26.07"]
    for one in [*told, "kubernetes: Deployment default/chat", "dry-run"]:
        assert one in shown


def test_replicas_and_their_numbers_fit_a_line_each() -> None:
    server = ServerRef(http="http://127.0.0.1:4000", grpc="127.0.0.1:4001")
    shown = _table(
        Replica(name="d.0a1b2c", deployment="d", model="m", pool="p", state="ready", server=server)
    )
    assert "http://127.0.0.1:4000" in shown
    assert "grpc" not in shown
    deployment = Deployment(name="d", model="m", scaling=Scaling(pool="p", min_replicas=0, max_replicas=4))
    assert "0 to 4 in p" in _table(deployment)
    status = ScalingStatus(name="d", model="m", pool="p", wanted=3, ready=1, starting=2, reason="load")
    assert [line.split() for line in _table(status).splitlines()[-1:]] == [
        ["d", "p", "3", "1", "2", "0", "load"]
    ]
