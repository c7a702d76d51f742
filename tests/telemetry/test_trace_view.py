from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console

from telemetry import names
from telemetry.span_record import SpanRecord
from telemetry.trace_view import Trace, bar, load, render

MS = 10**6


def span(name: str, start_ms: int, end_ms: int, parent: str | None = None, trace: str = "t") -> SpanRecord:
    return SpanRecord(trace, name, name, "internal", start_ms * MS, end_ms * MS, parent_id=parent)


def shown(*traces: Trace) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(traces))
    return console.export_text()


def test_a_tree_is_walked_in_order_of_time_with_its_depths() -> None:
    trace = Trace.of(
        "t",
        [
            span("b", 5, 9, "root"),
            span("root", 0, 10, "elsewhere"),
            span("a", 0, 5, "root"),
            span("a1", 1, 2, "a"),
        ],
    )
    assert [(depth, each.name) for depth, each in trace.spans] == [(0, "root"), (1, "a"), (2, "a1"), (1, "b")]


def test_bars_lie_where_their_spans_do() -> None:
    trace = Trace.of("t", [span("root", 0, 40), span("half", 20, 40, "root"), span("blink", 39, 39, "root")])
    whole, half, blink = (bar(trace, each) for _, each in trace.spans)
    assert (whole, half, blink) == ("█" * 40, " " * 20 + "█" * 20, " " * 39 + "█")


def test_the_newest_traces_of_the_file_are_shown_with_their_details(traced: Callable[..., Any]) -> None:
    kept = traced(sample_ratio=1)
    for number in range(4):
        trace = kept.tracing.begin(None, None)
        trace.attempt(f"d@h:{number}", "tensorrt_llm", "m").finished("ServerBusyError")
        trace.finish(503, "busy", {names.OPERATION_NAME: "chat", names.REQUEST_MODEL: f"m{number}"})
    kept.tracing.flush()
    last = load(kept.path, limit=2)
    text = shown(*last)
    assert [each.spans[0][1].name for each in last] == ["chat m2", "chat m3"]
    assert "endpoint d@h:3" in text
    assert "error ServerBusyError" in text
    assert last[1].trace_id in text
    (found,) = load(kept.path, trace_id=last[0].trace_id[:12].upper())
    assert last[0].trace_id == found.trace_id


def test_an_empty_file_says_so(traced: Callable[..., Any]) -> None:
    assert "no traces" in shown(*load(traced().path))
