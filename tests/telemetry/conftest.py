from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.config import TelemetryConfig
from telemetry.span_record import SpanRecord
from telemetry.trace_file import read_spans
from telemetry.tracing import Tracing


class Traced:
    """A Tracing that writes to a file, and what it wrote."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.tracing = Tracing(TelemetryConfig(exporter="file", trace_file=path, **settings))

    def spans(self) -> list[SpanRecord]:
        self.tracing.flush()
        return list(read_spans(self.path))

    def named(self, name: str) -> SpanRecord:
        (found,) = [span for span in self.spans() if span.name == name]
        return found


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Callable[..., Traced]]:
    """Makes a Tracing with the settings given; all are closed at the end."""
    made: list[Traced] = []

    def make(**settings: Any) -> Traced:
        made.append(Traced(tmp_path / f"traces-{len(made)}.jsonl", settings))
        return made[-1]

    yield make
    for each in made:
        assert each.tracing.close()
