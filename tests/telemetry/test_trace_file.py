"""The trace file, written by several processes at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from telemetry.trace_file import previous_file, read_spans

WRITER = """
import sys
from pathlib import Path
from telemetry import names
from telemetry.config import TelemetryConfig
from telemetry.tracing import Tracing

path, model, requests, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = TelemetryConfig(exporter="file", sample_ratio=1, trace_file=path, trace_file_max_bytes=size)
tracing = Tracing(config)
for number in range(requests):
    trace = tracing.begin(None, None)
    trace.attempt("d@h:1", "tensorrt_llm", "m").first_token()
    trace.finish(200, None, {names.OPERATION_NAME: "chat", names.REQUEST_MODEL: model})
    if number % 20 == 0:
        tracing.flush()
assert tracing.close()
"""


def write(path: Path, writers: int, requests: int, size: int) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"m{n}", str(requests), str(size)])
        for n in range(writers)
    ]
    assert [0] * writers == [process.wait(timeout=60) for process in started]


def test_lines_of_several_workers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "new-folder" / "traces.jsonl"
    write(path, writers=3, requests=300, size=64 * 1024 * 1024)
    lines = path.read_bytes().count(b"\n")
    spans = list(read_spans(path))
    assert lines == len(spans) == 3 * 300 * 4
    assert {f"chat m{n}": 300 for n in range(3)} == Counter(s.name for s in spans if s.kind == "server")


def test_the_file_is_rotated_at_its_size_by_one_of_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write(path, writers=2, requests=400, size=64 * 1024)
    sizes = [path.stat().st_size, previous_file(path).stat().st_size]
    assert all(0 < size < 2 * 64 * 1024 for size in sizes)
    assert len(list(tmp_path.iterdir())) == 2
    assert sum(file.read_bytes().count(b"\n") for file in tmp_path.iterdir()) == len(list(read_spans(path)))


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    write(path, writers=1, requests=1, size=64 * 1024)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:50])
    assert len(list(read_spans(path))) == 4


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from telemetry import names
    from telemetry.config import TelemetryConfig
    from telemetry.tracing import Tracing

    tracing = Tracing(TelemetryConfig(exporter="file", sample_ratio=1, trace_file=Path("/dev/full")))
    tracing.begin(None, None).finish(200, None, {names.HTTP_ROUTE: "/x"})
    tracing.flush()
    tracing.close()
    assert "trace file not written" in caplog.messages
