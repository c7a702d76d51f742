"""Cards at the command line: from data sheets, and what several workers have learned put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from enginehouse.card_listing import learned, one_line_learned, side_by_side
from enginehouse.cli import app
from enginehouse.errors import CommandError
from model_registry.cards import GoodputCard
from tests.router.test_forecast import CARD
from tests.router.test_roofline import LLAMA_8B


def roofline(*arguments: str) -> str:
    """Its output. Raises what the command raises."""
    command = ["card", "roofline", *arguments]
    run = CliRunner().invoke(app, command, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return run.output


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    return tmp_path


def test_a_roofline_card_is_one_that_a_deployment_takes(checkpoint: Path) -> None:
    """And says what it is; twice the GPUs, not quite twice the prefill: they exchange what they compute."""
    cards = [
        GoodputCard.model_validate(
            yaml.safe_load(
                roofline("--gpu-class", "h100-sxm", "--checkpoint", str(checkpoint), "--gpus", gpus)
            )["card"]
        )
        for gpus in ("1", "2")
    ]
    assert [(one.source, one.gpus) for one in cards] == [("roofline", 1), ("roofline", 2)]
    assert 1.5 < cards[1].prefill_tokens_per_s / cards[0].prefill_tokens_per_s < 2
    assert cards[0].goodput is not None
    assert cards[0].goodput.requests_per_s > 0


@pytest.mark.parametrize(
    ("config", "gpu_class", "said"),
    [
        (None, "h100-sxm", "does not exist or is empty"),
        ("{", "h100-sxm", "is not JSON"),
        ("[]", "h100-sxm", "is not a JSON object"),
        (json.dumps({**LLAMA_8B, "vocab_size": None}), "h100-sxm", "does not say vocab_size"),
        (json.dumps(LLAMA_8B), "h1", "no figures of GPU class 'h1'"),
        (json.dumps({**LLAMA_8B, "num_hidden_layers": 900}), "l4", "give more GPUs"),
    ],
)
def test_what_tells_too_little_is_said(tmp_path: Path, config: str | None, gpu_class: str, said: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(CommandError, match=said):
        roofline("--gpu-class", gpu_class, "--checkpoint", str(tmp_path))


def told(ttft_seen: int, itl_seen: int, pace: float, step_s: float, age_s: float) -> dict[str, Any]:
    figures = {
        "prefill_tokens_per_s": pace,
        "overhead_s": 0.01,
        "step_s": step_s,
        "step_per_request_s": 0.001,
        "ttft_seen": ttft_seen,
        "ttft_age_s": age_s if ttft_seen else None,
        "itl_seen": itl_seen,
        "itl_age_s": age_s if itl_seen else None,
    }
    return {"learned": figures}


def test_what_workers_learned_counts_by_what_each_has_seen() -> None:
    found = learned([told(30, 10, 1000, 0.02, 5), told(10, 0, 3000, 9.0, 2), told(0, 0, 7, 7, 0)])
    assert found is not None
    assert found["prefill_tokens_per_s"] == pytest.approx(1500)
    assert found["step_s"] == pytest.approx(0.02), "who has seen no step says nothing of steps"
    assert (found["ttft_seen"], found["ttft_age_s"], found["itl_age_s"]) == (40, 2, 5)
    assert one_line_learned(found) == "1,500 prompt tok/s, step 20 ms (2 s ago)"
    assert learned([told(0, 0, 7, 7, 0)]) is None
    assert one_line_learned(None) is None


def test_a_figure_stands_beside_what_was_learned_of_it() -> None:
    shown = side_by_side(CARD.model_dump(mode="json"), [told(30, 10, 48_000, 0.007, 5)])
    assert "planned 2026-11-28" in shown[0]
    assert "30 first tokens, the last 5 s ago; 10 answers, the last 5 s ago" in shown[0]
    assert shown[1].split() == ["prefill", "50,000", "48,000", "tokens/s"]
    assert shown[3].split() == ["step,", "batch", "of", "one", "6", "7", "ms"]
    assert side_by_side(None, [])[0].strip() == "no card, and nothing seen yet"
    assert side_by_side(None, [told(1, 0, 5, 5, 1)])[3].split()[-3:] == ["-", "-", "ms"]
