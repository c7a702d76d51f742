"""`enginehouse replay`: capacity planning at the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enginehouse.cli import app
from enginehouse.errors import CommandError

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A hundred requests of 2,000 tokens, one every 50 ms."""
    path = tmp_path / "mine.csv"
    rows = [f"2024-01-01 00:00:{n * 0.05:09.6f},2000,20\n" for n in range(100)]
    path.write_text(HEAD + "".join(rows))
    return path


def replay(*arguments: str) -> str:
    """Its output. Raises what the command raises."""
    run = CliRunner().invoke(app, ["replay", *arguments], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.output


def test_policies_are_shown_side_by_side_and_written(trace: Path, tmp_path: Path) -> None:
    """A row for each policy, a line of CSV for each seed."""
    out = tmp_path / "figures.csv"
    shown = replay("-t", str(trace), "-p", "product", "-p", "round-robin", "--seeds", "2", "-o", str(out))
    assert "product" in shown
    assert "round-robin" in shown
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {"100"} == {row["requests"] for row in rows}


def test_a_plan_is_the_fewest_engines_that_meet_the_slo(trace: Path, tmp_path: Path) -> None:
    """One fewer would miss it, and a faster engine needs fewer."""
    out, card = tmp_path / "figures.csv", tmp_path / "card.yaml"

    def planned(*more: str) -> int:
        replay("-t", str(trace), "--plan", "--ttft", "0.3", "-o", str(out), *more)
        with out.open(encoding="utf-8") as file:
            return int(next(csv.DictReader(file))["engines"])

    found = planned()
    assert found > 1
    replay("-t", str(trace), "-e", str(found - 1), "--ttft", "0.3", "-o", str(out))
    with out.open(encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["met"]) < 0.9
    card.write_text("token_s: 0.00001\n")
    assert planned("--card", str(card)) < found


@pytest.mark.parametrize(
    ("card", "arguments", "complaint"),
    [
        ("", ["-t", "missing.csv"], "missing.csv.*can be read"),
        ("", ["-p", "best"], "no routing policy 'best'"),
        ("token_s: 0", [], "card.yaml: token_s"),
        ("gpu: H200", [], "card.yaml: gpu"),
        ("- 1", [], "card.yaml: the whole"),
        ("a: [", [], "is not YAML"),
        ("", ["--plan", "--ttft", "0.01", "--tpot", "0.0001"], "do not meet the SLO"),
        ("kv_tokens: 1024", [], "fits no engine"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    trace: Path, tmp_path: Path, card: str, arguments: list[str], complaint: str
) -> None:
    """Field and remedy, never a traceback."""
    path = tmp_path / "card.yaml"
    path.write_text(card)
    with pytest.raises(CommandError, match=complaint):
        replay("-t", str(trace), "--card", str(path), *arguments)
