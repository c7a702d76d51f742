"""Listings fit a terminal without cutting what the next command needs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from enginehouse.errors import ApiError, report
from enginehouse.listing import as_table, describe
from enginehouse.objects import Objects

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
