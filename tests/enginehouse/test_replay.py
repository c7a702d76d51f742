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
        ("", ["--plan", "--ttft", "0.01", "--itl", "0.0001"], "do not meet the SLO"),
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


GOODPUT_CARD = """\
source: measured
gpu_class: h100-sxm
date: 2026-11-28
prefill_tokens_per_s: 100000
overhead_s: 0.02
step_s: 0.006
step_per_request_s: 0.0001
slots: 64
"""


@pytest.mark.parametrize("form", ["alone", "section", "deployment"])
def test_a_goodput_card_is_a_card_in_whatever_file(trace: Path, tmp_path: Path, form: str) -> None:
    """As `enginehouse card` prints it and as `enginehouse get -o yaml` does: the same engine."""
    out, card = tmp_path / "figures.csv", tmp_path / "card.yaml"
    indented = "".join(f"  {line}\n" for line in GOODPUT_CARD.splitlines())
    head = "apiVersion: enginehouse/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n"
    deployment = f"{head}  model: m\n  card:\n" + "".join(f"    {one}\n" for one in GOODPUT_CARD.splitlines())
    card.write_text({"alone": GOODPUT_CARD, "section": f"card:\n{indented}", "deployment": deployment}[form])
    replay("-t", str(trace), "-e", "4", "-o", str(out), "--card", str(card))
    with out.open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert float(row["mean_ttft_s"]) == pytest.approx(0.02), "2,000 tokens at 100,000 per second"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOODPUT_CARD.replace("slots: 64\n", ""), "slots: Field required"),
        ("kind: Model\nname: m\n", "no Deployment with a card"),
        ("slots: 0\n", "slots: Input should be greater"),
    ],
)
def test_a_card_that_cannot_be_used_names_the_field(
    trace: Path, tmp_path: Path, text: str, said: str
) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(text)
    with pytest.raises(CommandError, match=said):
        replay("-t", str(trace), "--card", str(card))
