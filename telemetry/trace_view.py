"""Trace view: traces of the trace file as trees, with a bar for the time of each span."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from telemetry import names
from telemetry.span_record import SpanRecord
from telemetry.trace_file import read_spans

_BAR_CELLS: Final = 40
_DETAILS: Final = (
    (names.ERROR_TYPE, "error"),
    (names.HTTP_RESPONSE_STATUS_CODE, "status"),
    (names.TENANT, "tenant"),
    (names.PROFILE, "profile"),
    (names.ENDPOINT, "endpoint"),
    (names.ENGINE_QUEUE_S, "engine queue s"),
    (names.ENGINE_PREFILL_S, "prefill s"),
    (names.ENGINE_DECODE_S, "decode s"),
    (names.USAGE_INPUT_TOKENS, "in"),
    (names.USAGE_OUTPUT_TOKENS, "out"),
    (names.CANCELLED_BY, "cancelled by"),
    (names.KEPT_BECAUSE, "kept"),
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one request that this file holds, in the order of a walk through their tree."""

    trace_id: str
    spans: tuple[tuple[int, SpanRecord], ...]
    """Each with its depth."""

    @classmethod
    def of(cls, trace_id: str, spans: Iterable[SpanRecord]) -> Self:
        """Arrange `spans`; those whose parent is not among them are roots."""
        present = sorted(spans, key=lambda span: (span.start_ns, -span.end_ns))
        ids = {span.span_id for span in present}
        children: defaultdict[str | None, list[SpanRecord]] = defaultdict(list)
        for span in present:
            children[span.parent_id if span.parent_id in ids else None].append(span)
        return cls(trace_id, tuple(_walk(children, None, 0)))

    @property
    def start_ns(self) -> int:
        """Begin of the earliest span, Unix nanoseconds."""
        return min(span.start_ns for _, span in self.spans)

    @property
    def duration_ns(self) -> int:
        """From the earliest begin to the latest end."""
        return max(span.end_ns for _, span in self.spans) - self.start_ns


def load(path: Path, trace_id: str | None = None, limit: int = 10) -> list[Trace]:
    """The newest `limit` traces of the file, oldest first; only those whose id begins with `trace_id`."""
    spans: defaultdict[str, list[SpanRecord]] = defaultdict(list)
    for span in read_spans(path):
        if trace_id is None or span.trace_id.startswith(trace_id.lower()):
            spans[span.trace_id].append(span)
    traces = sorted((Trace.of(*item) for item in spans.items()), key=lambda trace: trace.start_ns)
    return traces[-limit:] if limit > 0 else []


def render(traces: Sequence[Trace]) -> RenderableType:
    """The traces, for rich to print."""
    if not traces:
        return Text("no traces")
    return Group(*(_table(trace) for trace in traces))


def _walk(
    children: dict[str | None, list[SpanRecord]], parent: str | None, depth: int
) -> Iterator[tuple[int, SpanRecord]]:
    for span in children.get(parent, ()):
        yield depth, span
        yield from _walk(children, span.span_id, depth + 1)


def _table(trace: Trace) -> Table:
    began = datetime.fromtimestamp(trace.start_ns / 1e9).astimezone()
    table = Table(
        title=f"{trace.trace_id}  {began:%Y-%m-%d %H:%M:%S}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("span", no_wrap=True)
    table.add_column("start ms", justify="right")
    table.add_column("took ms", justify="right")
    table.add_column("", no_wrap=True, min_width=_BAR_CELLS)
    table.add_column("", overflow="fold")
    for depth, span in trace.spans:
        table.add_row(*_row(trace, depth, span))
    return table


def _row(trace: Trace, depth: int, span: SpanRecord) -> tuple[Text, str, str, Text, Text]:
    style = "red" if span.error else ""
    return (
        Text("  " * depth + span.name, style=style),
        f"{(span.start_ns - trace.start_ns) / 1e6:.1f}",
        f"{(span.end_ns - span.start_ns) / 1e6:.1f}",
        Text(bar(trace, span), style=style or "cyan"),
        Text(_details(span), style="dim"),
    )


def bar(trace: Trace, span: SpanRecord) -> str:
    """Where in its trace the span lies, 40 cells wide; at least one cell is filled."""
    scale = _BAR_CELLS / max(1, trace.duration_ns)
    first = min(_BAR_CELLS - 1, int((span.start_ns - trace.start_ns) * scale))
    filled = max(1, min(_BAR_CELLS - first, round((span.end_ns - span.start_ns) * scale)))
    return " " * first + "█" * filled + " " * (_BAR_CELLS - first - filled)


def _details(span: SpanRecord) -> str:
    shown = [f"{label} {span.attributes[name]}" for name, label in _DETAILS if name in span.attributes]
    headers = [f"headers {(event.at_ns - span.start_ns) / 1e6:.1f} ms" for event in span.events]
    return ", ".join(shown + headers)
