"""A card is measured on a running engine, applied, and shown beside what gateways learn."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.command_line import run_here
from tests.stack.stack import Stack, wait_until

MODEL = "house-chat:latency"
DEPLOYMENT = "house-chat-latency"


def run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    keys = {"ENGINEHOUSE_ADMIN_KEY": stack.ready["admin_key"], "ENGINEHOUSE_API_KEY": stack.key}
    return run_here(*arguments, COLUMNS="250", ENGINEHOUSE_URL=stack.origin, **keys)


def shown(stack: Stack, *arguments: str) -> str:
    done = run(stack, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deployment(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(shown(stack, "get", "deployment", DEPLOYMENT, "-o", "yaml"))
    return found


def test_a_measured_card_can_be_applied_and_is_shown_beside_what_was_learned(
    stack: Stack, tmp_path: Path
) -> None:
    """And taken back by rollback, with the forecast begun anew each time."""
    before, file = deployment(stack), tmp_path / "card.yaml"
    assert "card" not in before["spec"]
    short = ("--prompt-tokens", "64", "--output-tokens", "8", "--longest-prompt", "256", "--seconds", "5")
    measured = run(stack, "card", "measure", "-m", MODEL, "--gpu-class", "cpu", *short, "-o", str(file))
    assert measured.returncode == 0, measured.stderr
    assert "requests/s of" in measured.stderr
    manifest = yaml.safe_load(file.read_text())
    card = manifest["spec"].pop("card")
    assert manifest == before, "the deployment as it is, and its card"
    assert (card["source"], card["gpu_class"], card["slots"]) == ("measured", "cpu", 16)
    assert card["kv_tokens"] == 512 * 32
    assert 0 < card["step_s"] < 1
    assert 0.0001 < card["overhead_s"] < 2
    assert 100 < card["prefill_tokens_per_s"] <= 1e6
    goodput = card["goodput"]
    assert goodput["requests_per_s"] > 0
    assert 56 <= goodput["prompt_tokens"] <= 72
    assert goodput["output_tokens"] == 8
    learned = shown(stack, "describe", "deployment", DEPLOYMENT)
    assert "no card" in learned
    assert "first tokens, the last" in learned

    assert "card: (none) ->" in shown(stack, "apply", "-f", str(file))
    wait_until(
        lambda: "nothing seen yet" in shown(stack, "describe", "profile", "latency"),
        30,
        "its forecasts have begun anew",
    )
    described = shown(stack, "describe", "profile", "latency")
    assert f"measured {card['date']}" in described
    assert "batch_scheduler_policy: guaranteed_no_evict" in described
    table = shown(stack, "get", "deployments")
    assert f"(measured {card['date']}, cpu)" in table
    stack.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Well?"}], max_tokens=4, stream=True
    ).close()
    text = list(
        stack.client().chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Well?"}], max_tokens=4, stream=True
        )
    )
    assert text
    assert "first tokens, the last" in shown(stack, "describe", "deployment", DEPLOYMENT)
    told = yaml.safe_load(shown(stack, "card", "learned", "-m", MODEL, "--gpu-class", "cpu"))["spec"]["card"]
    assert (told["source"], told["slots"]) == ("learned", 16)
    assert 0 < told.get("step_per_request_s", 0.0) + told["step_s"] < 1
    assert (told["goodput"]["ttft_s"], told["goodput"]["itl_s"]) == (1.0, 0.03)

    shown(stack, "rollback", "deployment", DEPLOYMENT)
    assert deployment(stack) == before


def test_what_cannot_be_measured_is_said_before_anything_is_asked(stack: Stack) -> None:
    for arguments, said in (
        (("-m", MODEL), "--gpu-class"),
        (("-m", "house-chat:nightly", "--gpu-class", "cpu"), "no endpoint of house-chat is ready"),
        (("-m", "house-vectors", "--gpu-class", "cpu"), "answers with vectors"),
        (("-m", MODEL, "--gpu-class", "cpu", "--longest-prompt", "4000"), "are more than the 2048"),
        (("-m", MODEL, "--gpu-class", "cpu", "--deployment", "siding-chat"), "does not serve"),
        (("-m", "nobody", "--gpu-class", "cpu"), "nobody"),
    ):
        done = run(stack, "card", "measure", *arguments)
        assert done.returncode != 0
        assert said in done.stderr, (arguments, done.stderr)
