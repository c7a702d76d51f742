"""A journal holds all that a search needs to go on, and says what is wrong with a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine_builder.tuning import Knob, Measured, Setting, Space, Trial
from enginehouse.errors import CommandError
from enginehouse.tuned_deployment import Original
from enginehouse.tuning_journal import Journal
from model_registry.entities import Deployment, ServerRef

START = Setting((("scheduler_policy", "max_utilization"), ("max_in_flight", "16")))
DEPLOYMENT = Deployment(
    name="d", model="m", servers=(ServerRef(http="http://t:8000"),), labels={"gpu_class": "l4"}
)
JOURNAL = Journal(
    "m:latency",
    (512, 128),
    20.0,
    Original(DEPLOYMENT, {"http://t:8000": {"parameters": {"a": {"string_value": "b"}}}}, "tensorrt_llm"),
    Space((Knob("max_in_flight", ("8", "16")),), START, (1, 2, 4)),
    [
        Measured(Trial(START, 4), 21.5, 90, 4.5, 500.0, 0.9, 0.1, 0.2, 0.03),
        Measured(Trial(START.replaced("max_in_flight", "8"), 4, 2), 3.0, error="it would not load"),
    ],
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "journal.json"
    JOURNAL.write(path)
    assert Journal.read(path) == JOURNAL
    assert json.loads(path.read_text())["history"][0]["goodput"] == 4.5 * 0.9, "for readers"
    assert [one.name for one in path.parent.iterdir()] == ["journal.json"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"enginehouse_tune": 2}', b'{"enginehouse_tune": 1}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(data)
    with pytest.raises(CommandError, match="is not a journal of `enginehouse tune`"):
        Journal.read(path)
    with pytest.raises(CommandError, match="No such file"):
        Journal.read(tmp_path / "none.json")
