"""What cannot be built is refused before a GPU is touched, with the field, the reason and the remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine_builder.contract.versions import newer
from engine_builder.plan import Finding, check
from engine_builder.plan.candidates import quantized_as, sixteen_bits
from engine_builder.plan.precision_rules import PRECISIONS, works_on
from engine_builder.shape import Shape
from router.gpus import GPUS
from tests.engine_builder.plan.specs import LLAMA_8B, LLAMA_70B, decided, spec

S8, S70 = LLAMA_8B.shape, LLAMA_70B.shape
NO_PAGING = {"paged_context_fmha": False, "kv_reuse": False, "chunked_context": False}
DRAFT = {"max_draft_len": 4, "draft_checkpoint": "small"}


def found(shape: Shape = S8, **fields: Any) -> dict[str, Finding]:
    """By rule; fields are of a spec with nothing else open."""
    return {one.rule: one for one in check(decided(**fields), shape)}


def test_a_sound_spec_is_only_told_its_image() -> None:
    every = check(decided(), S8)
    assert [(one.rule, one.severity) for one in every] == [("image", "note")]
    assert "26.07" in every[0].reason


@pytest.mark.parametrize(
    ("rule", "field", "fields"),
    [
        ("precision-architecture", "precision", {"precision": "fp8", "gpu_class": "a100-sxm-80gb"}),
        ("precision-architecture", "precision", {"precision": "nvfp4"}),
        ("precision-architecture", "precision", {"precision": "int8-sq", "gpu_class": "b200-sxm"}),
        ("precision-architecture", "precision", {"precision": "int4-awq", "gpu_class": "b300-sxm"}),
        ("lane-precision", "precision", {"precision": "int8-sq", "lane": "llmapi"}),
        ("lane-precision", "precision", {"precision": "int4-wo", "lane": "vllm", "version": "0.24.0"}),
        ("vllm-quantized", "precision", {"precision": "int4-awq", "lane": "vllm", "version": "0.24.0"}),
        ("kv-architecture", "kv_cache", {"kv_cache": "fp8", "gpu_class": "a10"}),
        ("kv-architecture", "kv_cache", {"kv_cache": "int8", "gpu_class": "b200-sxm", **NO_PAGING}),
        ("kv-lane", "kv_cache", {"kv_cache": "int8", "lane": "llmapi"}),
        ("int8-kv-paged", "kv_cache", {"kv_cache": "int8"}),
        ("fp8-kv-weights", "kv_cache", {"kv_cache": "fp8"}),
        ("fp8-kv-weights", "kv_cache", {"kv_cache": "fp8", "precision": "int4-awq"}),
        ("fp8-context-fmha", "fp8_context_fmha", {"fp8_context_fmha": True}),
        ("fp8-context-fmha", "fp8_context_fmha", {"fp8_context_fmha": True, "precision": "fp8"}),
        ("lane-version", "version", {"version": "1.3.0rc4"}),
        ("lane-version", "version", {"version": "0.19.0", "lane": "llmapi"}),
        ("lane-version", "version", {"version": "0.21.0", "lane": "trtllm-serve"}),
        ("tp-heads", "tensor_parallel", {"tensor_parallel": 3}),
        ("pp-layers", "pipeline_parallel", {"pipeline_parallel": 33}),
        ("positions", "max_seq_len", {"max_seq_len": 8193}),
        ("step-tokens-batch", "max_num_tokens", {"max_num_tokens": 32, "max_batch_size": 64}),
        ("step-tokens-prompt", "max_num_tokens", {"max_num_tokens": 1024, "chunked_context": False}),
        ("beam-chunked", "max_beam_width", {"max_beam_width": 4}),
        ("beam-lane", "max_beam_width", {"max_beam_width": 4, "lane": "vllm", "version": "0.24.0"}),
        (
            "beam-speculative",
            "max_beam_width",
            {"max_beam_width": 2, "chunked_context": False, "speculative": {"mode": "medusa", **DRAFT}},
        ),
        (
            "speculation-lane",
            "speculative.mode",
            {"speculative": {"mode": "medusa", **DRAFT}, "lane": "llmapi"},
        ),
        (
            "speculation-draft",
            "speculative.draft_checkpoint",
            {"speculative": {"mode": "eagle", "max_draft_len": 4}},
        ),
        (
            "speculation-draft",
            "speculative.draft_checkpoint",
            {"speculative": {"mode": "lookahead_decoding", **DRAFT}},
        ),
        (
            "speculation-reuse",
            "kv_reuse",
            {"speculative": {"mode": "draft_tokens_external", **DRAFT}, "kv_reuse": False},
        ),
        (
            "speculation-precision",
            "precision",
            {"precision": "fp8", "speculative": {"mode": "eagle", **DRAFT}},
        ),
        (
            "speculation-precision",
            "kv_cache",
            {"kv_cache": "fp8", "speculative": {"mode": "medusa", **DRAFT}},
        ),
        (
            "speculation-stages",
            "pipeline_parallel",
            {"pipeline_parallel": 2, "speculative": {"mode": "explicit_draft_tokens", **DRAFT}},
        ),
        ("lora-modules", "lora.target_modules", {"lora": {"target_modules": ["q_proj"]}}),
        ("lora-rank", "lora.max_rank", {"lora": {"max_rank": 24}, "lane": "vllm", "version": "0.24.0"}),
        ("gpu-class", "gpu_class", {"gpu_class": "h1000", "precision": None}),
        ("memory-weights", "precision", {"gpu_class": "l4", "max_batch_size": 2048}),
        ("memory-kv", "precision", {"gpu_class": "l4", "max_batch_size": 1010}),
        ("memory-longest", "max_seq_len", {"gpu_class": "l4", "precision": "fp8", "max_seq_len": 131072}),
    ],
)
def test_it_is_refused(rule: str, field: str, fields: dict[str, Any]) -> None:
    shape = replace(S8, max_positions=131072) if rule == "memory-longest" else S8
    one = found(shape, **fields)[rule]
    assert (one.field, one.severity) == (field, "error")
    assert one.reason
    assert one.remedy


@pytest.mark.parametrize(
    ("rule", "severity", "fields"),
    [
        ("fp8-context-fmha-forced", "warning", {"precision": "fp8", "kv_cache": "fp8"}),
        ("nvfp4-kv", "note", {"precision": "nvfp4", "gpu_class": "b200-sxm"}),
        ("image", "warning", {"version": "1.1.1"}),
        ("image", "warning", {"version": "1.3.0rc20", "lane": "llmapi"}),
        ("vllm-version", "warning", {"lane": "vllm"}),
        ("kv-heads-replicated", "note", {"tensor_parallel": 16}),
        ("multi-node", "warning", {"tensor_parallel": 16}),
        ("multi-node", "warning", {"tensor_parallel": 8, "pipeline_parallel": 2}),
        ("no-nvlink", "warning", {"tensor_parallel": 4, "gpu_class": "l40s"}),
        ("pp-layers", "warning", {"pipeline_parallel": 3}),
        ("step-tokens-many", "warning", {"max_num_tokens": 65536}),
        ("memory-batch", "warning", {"max_batch_size": 512}),
        ("lora-llmapi", "warning", {"lora": {}, "lane": "llmapi"}),
        ("gpu-class", "warning", {"gpu_class": "h20"}),
    ],
)
def test_it_is_told(rule: str, severity: str, fields: dict[str, Any]) -> None:
    assert found(**fields)[rule].severity == severity


def test_fp8_on_an_a100_names_what_works_there() -> None:
    one = found(precision="fp8", kv_cache="fp8", gpu_class="a100-sxm-80gb")["precision-architecture"]
    assert "SM 80" in one.reason
    assert "int8-sq" in one.remedy
    assert "fp8," not in one.remedy


def test_int8_kv_goes_without_reuse_and_chunks() -> None:
    one = found(kv_cache="int8", precision="int8-sq")["int8-kv-paged"]
    assert "kv_reuse" in one.reason
    assert "chunked_context" in one.reason
    assert "int8-kv-paged" not in found(
        kv_cache="int8", precision="int8-sq", max_num_tokens=8192, **NO_PAGING
    )


def test_70b_in_16_bits_on_one_gpu_of_80_gb_names_what_would_fit() -> None:
    one = found(S70, gpu_class="h100-sxm")["memory-weights"]
    assert "131.4 GiB of weights" in one.reason
    assert "tensor_parallel 2 takes 65.7 GiB" in one.remedy
    assert "fp8 takes 67.7 GiB" in one.remedy
    assert "nvfp4" not in one.remedy, "which H100 has no units for"


def test_fp8_attention_where_the_rules_allow_it() -> None:
    rules = found(precision="fp8", kv_cache="fp8", fp8_context_fmha=True)
    assert not {one for one in rules if one.startswith("fp8")}
    alone = found(precision="fp8", fp8_context_fmha=True, **NO_PAGING)
    assert "fp8-context-fmha" not in alone, "without paging it takes any cache"


def test_kv_heads_and_ranks_divide_one_another() -> None:
    odd = replace(S8, heads=24, kv_heads=6)
    assert found(odd, tensor_parallel=4)["tp-kv-heads"].remedy == "use 1, 2"
    assert "tp-kv-heads" not in found(odd, tensor_parallel=12)


def test_beams_and_guesses_take_tokens_of_a_step() -> None:
    guesses = {"mode": "eagle", "max_draft_len": 7, "draft_checkpoint": "heads"}
    one = found(max_batch_size=1024, max_num_tokens=8191, speculative=guesses)["step-tokens-batch"]
    assert "use at least 8192" in one.remedy
    assert "step-tokens-batch" not in found(max_batch_size=1024, max_num_tokens=8192, speculative=guesses)


def test_an_architecture_that_is_not_known_may_run_elsewhere() -> None:
    falcon = replace(S8, architecture="FalconForCausalLM")
    assert found(falcon)["architecture"].severity == "error"
    assert found(falcon, lane="llmapi")["architecture"].severity == "warning"


def test_a_quantized_checkpoint_is_what_it_is() -> None:
    awq = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    assert quantized_as(awq) == "int4-awq"
    assert (
        quantized_as({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}) == "nvfp4"
    )
    assert quantized_as({"quantization_config": {"quant_method": "fp8"}}) == "fp8"
    assert quantized_as({}) is None
    rules = {one.rule for one in check(decided(precision="fp8"), S8, quantized="int4-awq")}
    assert "checkpoint-quantized" in rules
    vllm = decided(precision="int4-awq", lane="vllm", version="0.24.0")
    assert "vllm-quantized" not in {one.rule for one in check(vllm, S8, quantized="int4-awq")}


def test_sixteen_bits_are_the_checkpoints_own() -> None:
    assert sixteen_bits({"torch_dtype": "float16"}) == "fp16"
    assert sixteen_bits({"dtype": "bfloat16"}) == sixteen_bits({"torch_dtype": "float32"}) == "bf16"


def test_what_is_open_is_passed_over() -> None:
    assert [one for one in check(spec(), S8) if one.severity != "note"] == []
    assert [one.rule for one in check(spec(gpu_class="cpu"), S8) if one.severity != "note"] == []


def test_the_worst_comes_first() -> None:
    severities = [one.severity for one in check(decided(precision="nvfp4", version="1.1.1"), S8)]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_versions_are_told_their_images_and_compared_by_number() -> None:
    told = {version: check(decided(version=version), S8)[0] for version in ("0.9.0", "1.2.0rc8")}
    assert "tritonserver:24.05-trtllm-python-py3 holds" in told["0.9.0"].reason
    assert "26.03-trtllm-python-py3 may hold" in told["1.2.0rc8"].reason, "the sources disagree"
    assert newer("1.3.0rc1", "1.2.1")
    assert not newer("1.2.1.post1", "1.2.1")
    assert not newer("1.2", "1.2.1")


def test_every_gpu_can_run_sixteen_bits_in_every_lane() -> None:
    for gpu_class, gpu in GPUS.items():
        assert gpu.usable_bytes < gpu.memory_gb * 1.074e9, gpu_class
        assert (gpu.fp8_tflops is not None) == (gpu.sm >= 89), gpu_class
        assert (gpu.fp4_tflops is not None) == (gpu.sm >= 100), gpu_class
        for lane in PRECISIONS:
            assert works_on("bf16", gpu, lane), gpu_class
