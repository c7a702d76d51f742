"""`enginehouse replay --controller`: a scaled deployment's fleet at the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from enginehouse.errors import CommandError
from tests.enginehouse.test_replay import replay

SPEC = """
kind: Deployment
name: chat
model: chat
scaling: {pool: gpus, max_replicas: 20, cold_start_s: 40, ttft_s: 2.5}
card:
  {source: planned, gpu_class: l4, date: 2026-11-01, prefill_tokens_per_s: 4000, overhead_s: 0.02,
   step_s: 0.03, slots: 16}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """An hour that doubles and halves."""
    path = tmp_path / "rates.csv"
    each = enumerate([2, 2, 4, 4, 2, 2])
    path.write_text("timestamp,rate\n" + "".join(f"{600 * n},{rate}\n" for n, rate in each))
    return path


def test_ways_stand_side_by_side_and_are_written(spec: Path, rates: Path, tmp_path: Path) -> None:
    """For the deployment's own cold start, twice the traffic with twice the rate."""
    hours = {}
    for rate in ("3", "6"):
        out = tmp_path / rate
        shown = replay("--controller", str(spec), "-t", str(rates), "--rate", rate, "-o", str(out))
        assert "clairvoyant" in shown
        with (out / "scaling.csv").open(encoding="utf-8") as file:
            rows = {row["way"]: row for row in csv.DictReader(file)}
        assert {row["cold_start_s"] for row in rows.values()} == {"40"}
        assert (out / "timeline-rates-40s.svg").exists()
        hours[rate] = float(rows["clairvoyant"]["replica_hours"])
    assert 1.7 < hours["6"] / hours["3"] < 2.2


def test_requests_of_a_trace_and_several_cold_starts(spec: Path) -> None:
    shown = replay("--controller", str(spec), "--days", "0.01", "--cold-start", "30", "--cold-start", "90")
    assert shown.count("azure_conversation_2023") == 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SPEC.replace("max_replicas", "max_replica"), "did you mean 'max_replicas'"),
        (
            SPEC.replace("scaling: {pool: gpus, max_replicas: 20, cold_start_s: 40, ttft_s: 2.5}", ""),
            "either",
        ),
        ("kind: Model\nname: chat\ncontext_length: 10\n", "no Deployment with scaling"),
        (SPEC + "---" + SPEC.replace("name: chat", "name: other"), "2 Deployments"),
        ("a: [", "spec.yaml"),
    ],
)
def test_what_is_wrong_with_a_spec_is_said(text: str, what: str, spec: Path) -> None:
    spec.write_text(text)
    with pytest.raises(CommandError) as caught:
        replay("--controller", str(spec))
    assert what in f"{caught.value.message} {caught.value.remedy}"


def test_other_mistakes_are_said(spec: Path, rates: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="are of --controller"):
        replay("--days", "1")
    bad = tmp_path / "bad.csv"
    bad.write_text("timestamp,rate\n0,none\n")
    with pytest.raises(CommandError, match="line 2"):
        replay("--controller", str(spec), "-t", str(bad))
    with pytest.raises(CommandError, match="--out"):
        replay("--controller", str(spec), "-t", str(rates), "--days", "0.01", "-o", str(bad))
