"""A card from data sheets is near what measured kernel tables say, and refuses what cannot be."""

from __future__ import annotations

import datetime
import json

import pytest

from emulator.engine.pacing import CARDS
from enginehouse.checkpoint_size import model_size
from router.goodput import Ask, forecast
from router.roofline import RooflineError, card

TODAY = datetime.date(2026, 11, 28)
LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
QWEN_32B = {
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 25600,
    "vocab_size": 151936,
}
THIRD = 1 / 3


@pytest.mark.parametrize(
    ("name", "gpu_class", "gpus", "config", "precision"),
    [
        ("a100-sxm-80gb-llama-3.1-8b-bf16", "a100-sxm-80gb", 1, LLAMA_8B, "bf16"),
        ("h100-sxm-llama-3.1-8b-fp8", "h100-sxm", 1, LLAMA_8B, "fp8"),
        ("h100-sxm-x2-qwen3-32b-bf16", "h100-sxm", 2, QWEN_32B, "bf16"),
        ("h200-sxm-llama-3.1-8b-fp8", "h200-sxm", 1, LLAMA_8B, "fp8"),
        ("l40s-llama-3.1-8b-fp8", "l40s", 1, LLAMA_8B, "fp8"),
    ],
)
def test_it_is_within_a_third_of_measured_tables(
    name: str, gpu_class: str, gpus: int, config: dict[str, int], precision: str
) -> None:
    tables = json.loads((CARDS / f"{name}.json").read_text())
    found = card(gpu_class, gpus, model_size(config, precision), 512, 256, TODAY)  # type: ignore[arg-type]
    assert found.source == "roofline"
    assert found.prefill_tokens_per_s == pytest.approx(tables["prefill_tokens_per_s"], rel=THIRD)
    assert found.step_base_s == pytest.approx(tables["base_ms"] / 1e3, rel=THIRD)
    each_s = tables["per_request_us"] / 1e6 + 640 * tables["per_kv_token_ns"] / 1e9
    assert found.step_per_request_s == pytest.approx(each_s, rel=THIRD)


def test_the_size_of_known_models() -> None:
    """Against their published parameter counts."""
    size = model_size(LLAMA_8B, "bf16")
    assert size.weights_bytes / 2 == pytest.approx(8.03e9, rel=0.01)
    assert size.kv_bytes_per_token == 131072
    assert model_size(QWEN_32B, "fp8").weights_bytes == pytest.approx(32.8e9, rel=0.01)
    mixtral = {**LLAMA_8B, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
    size = model_size(mixtral, "bf16")
    assert size.weights_bytes / 2 == pytest.approx(46.7e9, rel=0.01)
    assert size.parameters == pytest.approx(12.8e9, rel=0.02)


def test_what_does_not_fit_is_refused_with_the_remedy() -> None:
    size = model_size({**LLAMA_8B, "num_hidden_layers": 320}, "bf16")
    with pytest.raises(RooflineError, match="give more GPUs"):
        card("h100-sxm", 1, size, 512, 128, TODAY)
    with pytest.raises(RooflineError, match=r"'h1000'.*h100-sxm"):
        card("h1000", 1, size, 512, 128, TODAY)


def test_slots_and_goodput_follow_memory() -> None:
    """Longer requests leave room for fewer."""
    size = model_size(LLAMA_8B, "bf16")
    short, long = (card("l40s", 1, size, tokens, 128, TODAY) for tokens in (512, 16_384))
    assert short.slots > long.slots >= 1
    rates = [forecast(one, Ask(512, 128, 2.0, 0.05)).requests_per_s for one in (short, long)]
    assert rates[0] > rates[1] > 0
