"""A card from data sheets is near what measured kernel tables say, and refuses what cannot be."""

from __future__ import annotations

import datetime
import json

import pytest

from emulator.engine.pacing import CARDS
from engine_builder.plan.performance import model_size
from engine_builder.shape import Shape
from model_registry.engine_specs import Precision
from router.goodput import Ask, forecast
from router.gpus import GPUS
from router.roofline import ModelSize, RooflineError, card, lines

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


def size_of(config: dict[str, int], precision: Precision, ranks: int = 1) -> ModelSize:
    """With a KV cache of the same width."""
    return model_size(Shape.of(config), precision, "fp8" if precision == "fp8" else "auto", ranks)


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
    name: str, gpu_class: str, gpus: int, config: dict[str, int], precision: Precision
) -> None:
    tables = json.loads((CARDS / f"{name}.json").read_text())
    found = card(gpu_class, gpus, size_of(config, precision, gpus), 512, 256, TODAY)
    assert found.source == "roofline"
    assert found.prefill_tokens_per_s == pytest.approx(tables["prefill_tokens_per_s"], rel=THIRD)
    assert found.step_base_s == pytest.approx(tables["base_ms"] / 1e3, rel=THIRD)
    each_s = tables["per_request_us"] / 1e6 + 640 * tables["per_kv_token_ns"] / 1e9
    assert found.step_per_request_s == pytest.approx(each_s, rel=THIRD)


def test_the_size_of_known_models() -> None:
    """Against their published parameter counts."""
    size = size_of(LLAMA_8B, "bf16")
    assert size.weights_bytes / 2 == pytest.approx(8.03e9, rel=0.01)
    assert size.kv_bytes_per_token == 131072
    assert size_of(QWEN_32B, "bf16").weights_bytes / 2 == pytest.approx(32.8e9, rel=0.01)
    assert size_of(LLAMA_8B, "bf16", 16).kv_bytes_per_token == 2 * 131072, "16 ranks keep 8 heads twice"
    mixtral = {**LLAMA_8B, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}
    size = size_of(mixtral, "bf16")
    assert size.weights_bytes / 2 == pytest.approx(46.7e9, rel=0.01)
    assert size.parameters == pytest.approx(12.8e9, rel=0.02)


def test_what_does_not_fit_is_refused_with_the_remedy() -> None:
    size = size_of({**LLAMA_8B, "num_hidden_layers": 320}, "bf16")
    with pytest.raises(RooflineError, match="give more GPUs"):
        card("h100-sxm", 1, size, 512, 128, TODAY)
    with pytest.raises(RooflineError, match=r"'h1000'.*h100-sxm"):
        card("h1000", 1, size, 512, 128, TODAY)


def test_slots_and_goodput_follow_memory() -> None:
    """Longer requests leave room for fewer."""
    size = size_of(LLAMA_8B, "bf16")
    short, long = (card("l40s", 1, size, tokens, 128, TODAY) for tokens in (512, 16_384))
    assert short.slots > long.slots >= 1
    rates = [forecast(one, Ask(512, 128, 2.0, 0.05)).requests_per_s for one in (short, long)]
    assert rates[0] > rates[1] > 0


@pytest.mark.parametrize(("ranks", "prefill_ms"), [(1, 46.68), (2, 29.54), (4, 20.73), (8, 17.37)])
def test_ranks_exchange_what_they_compute(ranks: int, prefill_ms: float) -> None:
    """A prompt of 2,048 tokens for the 8B in 16 bits on H100, as measured kernel tables have it."""
    found = lines(GPUS["h100-sxm"], ranks, size_of(LLAMA_8B, "bf16", ranks), 2048, 512)
    assert 2048e3 / found.prefill_tokens_per_s == pytest.approx(prefill_ms, rel=0.2)


def test_stages_compute_prompts_side_by_side_and_answers_one_after_the_other() -> None:
    size = size_of(LLAMA_8B, "bf16")
    one, two = (lines(GPUS["l40s"], stages, size, 2048, 512, stages) for stages in (1, 2))
    assert two.prefill_tokens_per_s == pytest.approx(2 * one.prefill_tokens_per_s, rel=1e-3)
    alone = one.step_s - one.step_per_request_s
    assert two.step_s - two.step_per_request_s == pytest.approx(alone, rel=1e-3)
    assert two.step_per_request_s == pytest.approx(one.step_per_request_s / 2, rel=1e-3)


def test_small_numbers_are_computed_faster_only_by_units_for_them() -> None:
    fp8, bf16 = size_of(LLAMA_8B, "fp8"), size_of(LLAMA_8B, "bf16")
    for gpu_class, faster in (("h100-sxm", True), ("a100-sxm-80gb", False)):
        rates = [lines(GPUS[gpu_class], 1, size, 2048, 512).prefill_tokens_per_s for size in (fp8, bf16)]
        assert (rates[0] > rates[1]) == faster, gpu_class
