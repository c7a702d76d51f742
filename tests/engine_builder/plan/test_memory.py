"""Memory as TensorRT-LLM's own tool and logs have it: the numbers of the contract sheet, within 2 %."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine_builder.plan.memory import (
    GIB,
    activation_bytes,
    kv_bytes_per_token,
    memory_of,
    weights_bytes,
)
from engine_builder.shape import Shape
from model_registry.engine_specs import Precision
from router.gpus import GPUS
from tests.engine_builder.plan.specs import LLAMA_2_7B, LLAMA_8B, LLAMA_70B, decided

TWO_PERCENT = 0.02
S8, S70 = LLAMA_8B.shape, LLAMA_70B.shape


def test_parameters_are_those_that_are_published() -> None:
    assert S8.parameters == 8_030_261_248
    assert S70.parameters == 70_553_706_496


@pytest.mark.parametrize(
    ("precision", "of_8b", "of_70b", "replicated", "sharded"),
    [
        ("bf16", 14.96, 131.42, 34.32, 32.86),
        ("fp8", 8.46, 67.67, 18.39, 16.92),
        ("int8-wo", 8.46, 67.67, 18.39, 16.92),
        ("int8-sq", 8.46, 67.67, 18.39, 16.92),
        ("int4-awq", 5.31, 36.79, 10.67, 9.20),
        ("nvfp4", 5.61, 39.78, 11.41, 9.95),
    ],
)
def test_weights_in_gib(
    precision: Precision, of_8b: float, of_70b: float, replicated: float, sharded: float
) -> None:
    """Of one GPU, of one GPU, and of each of four with the table of embeddings whole or in parts."""
    found = [
        weights_bytes(S8, precision),
        weights_bytes(S70, precision),
        weights_bytes(S70, precision, 4),
        weights_bytes(S70, precision, 4, sharded_embedding=True),
    ]
    assert [one / GIB for one in found] == pytest.approx(
        [of_8b, of_70b, replicated, sharded], rel=TWO_PERCENT
    )


@pytest.mark.parametrize(
    ("kv_cache", "of_8b", "of_70b"),
    [
        ("auto", (128, 32, 16, 16), (320, 80, 40, 40)),
        ("fp8", (64, 16, 8, 8), (160, 40, 20, 20)),
        ("int8", (64, 16, 8, 8), (160, 40, 20, 20)),
        ("nvfp4", (36, 9, 4.5, 4.5), (90, 22.5, 11.25, 11.25)),
    ],
)
def test_kv_cache_in_kib_per_token_and_rank(
    kv_cache: str, of_8b: tuple[float, ...], of_70b: tuple[float, ...]
) -> None:
    """At 1, 4, 8 and 16 ranks: with more ranks than KV heads each keeps one."""
    for shape, wanted in ((S8, of_8b), (S70, of_70b)):
        found = [kv_bytes_per_token(shape, kv_cache, ranks) / 1024 for ranks in (1, 4, 8, 16)]
        assert found == pytest.approx(wanted)


def test_stages_have_their_layers_cache_and_weights() -> None:
    assert kv_bytes_per_token(S70, "auto", 1, 4) == kv_bytes_per_token(S70, "auto") / 4
    assert kv_bytes_per_token(replace(S70, layers=81), "auto", 1, 4) == 21 * 4096, "the longest stage's"
    whole, half = weights_bytes(S70, "bf16"), weights_bytes(S70, "bf16", 1, 2)
    assert whole - half == pytest.approx(S70.linear)


@pytest.mark.parametrize(
    ("shape", "precision", "kv_cache", "ranks", "pool_gib", "tokens"),
    [
        (S8, "bf16", "auto", 1, 55.9, 458_145),
        (S8, "fp8", "fp8", 1, 61.8, 1_012_137),
        (S70, "bf16", "auto", 4, 38.5, 504_653),
        (S70, "fp8", "fp8", 4, 52.8, 1_385_142),
    ],
)
def test_worked_pools(
    shape: Shape, precision: Precision, kv_cache: str, ranks: int, pool_gib: float, tokens: int
) -> None:
    """Of a GPU with 79.1 GiB, where 2 GiB go to activations and buffers."""
    spec = decided(
        precision=precision, kv_cache=kv_cache, tensor_parallel=ranks, max_batch_size=64, max_seq_len=None
    )
    found = memory_of(spec, shape, GPUS["h100-sxm"])
    other = found.activations + found.buffers - 2 * GIB  # estimated here, assumed there
    pool = found.pool + spec.kv_fraction * other
    assert pool / GIB == pytest.approx(pool_gib, rel=TWO_PERCENT)
    assert pool / found.kv_per_token == pytest.approx(tokens, rel=TWO_PERCENT)
    assert found.pool / GIB == pytest.approx(pool_gib, rel=TWO_PERCENT), "the estimate is near that, too"


def test_blocks_are_whole() -> None:
    found = memory_of(decided(), S8, GPUS["h100-sxm"])
    assert found.kv_per_token * 32 == 4 * 2**20
    assert found.tokens == 32 * found.blocks
    assert found.requests(33) == found.blocks // 2
    assert found.requests(2560) == found.blocks // 80


def test_nvidias_own_logs() -> None:
    """The memory guide: 63.44 GiB for 259,840 tokens; the benchmark tool: 8,048 requests of 256 tokens."""
    tokens = 63.44 * GIB / kv_bytes_per_token(LLAMA_2_7B, "auto", 2)
    assert tokens == pytest.approx(259_840, rel=TWO_PERCENT)
    assert weights_bytes(LLAMA_2_7B, "fp16", 2) / 2**20 == pytest.approx(6695, rel=0.025)
    tokens = 0.95 * 132.37 * GIB / kv_bytes_per_token(S8, "fp8")
    assert tokens / 256 == pytest.approx(8048.16, rel=TWO_PERCENT)


def test_activations_are_an_estimate_on_the_safe_side_of_logs() -> None:
    """Steps of 8,192 tokens: Llama-2-7B in FP8 took 928.77 MiB, Mistral-Nemo on two GPUs 480.04 MiB."""
    nemo = Shape("MistralForCausalLM", 40, 5120, 32, 8, 128, 14336, 131072, 131072)
    for shape, ranks, logged in ((LLAMA_2_7B, 1, 928.77), (nemo, 2, 480.04)):
        assert 1 <= activation_bytes(shape, 8192, ranks) / 2**20 / logged < 1.6


def test_a_step_of_more_tokens_and_more_slots_leave_less_for_the_cache() -> None:
    gpu = GPUS["h100-sxm"]
    base = memory_of(decided(), S8, gpu)
    for fields in ({"max_num_tokens": 16384}, {"max_batch_size": 512}, {"gather_logits": True}):
        assert memory_of(decided(**fields), S8, gpu).pool < base.pool, fields


def test_the_fraction_is_of_free_memory_but_vllms_of_the_whole() -> None:
    gpu = GPUS["h100-sxm"]
    api = memory_of(decided(lane="llmapi", kv_fraction=0.8), S8, gpu)
    vllm = memory_of(decided(lane="vllm", version="0.24.0", kv_fraction=0.8), S8, gpu)
    assert api.pool == pytest.approx(0.8 * (gpu.usable_bytes - api.fixed), rel=1e-6)
    assert vllm.pool == pytest.approx(0.8 * gpu.usable_bytes - vllm.fixed, rel=1e-6)


def test_adapters_and_drafts_take_their_part() -> None:
    gpu = GPUS["h100-sxm"]
    base = memory_of(decided(), S70, gpu, None)
    eight = memory_of(decided(), S8, gpu)
    with_lora = memory_of(decided(lora={}), S8, gpu)
    assert with_lora.lora == pytest.approx(0.05 * (gpu.usable_bytes - eight.fixed), rel=1e-6)
    assert base.draft == 0
    for mode in ("medusa", "eagle", "explicit_draft_tokens"):
        heads = {"mode": mode, "max_draft_len": 4, "draft_checkpoint": "heads"}
        assert memory_of(decided(speculative=heads), S8, gpu).draft > 0, mode
    lookahead = {"mode": "lookahead_decoding", "max_draft_len": 4}
    assert memory_of(decided(speculative=lookahead), S8, gpu).draft == 0
    model = {"mode": "draft_tokens_external", "max_draft_len": 4, "draft_checkpoint": "small"}
    drafted = memory_of(decided(speculative=model), S8, gpu, LLAMA_2_7B)
    assert drafted.draft == weights_bytes(LLAMA_2_7B, "bf16")
    assert drafted.kv_per_token == kv_bytes_per_token(S8, "auto") + kv_bytes_per_token(LLAMA_2_7B, "auto")
