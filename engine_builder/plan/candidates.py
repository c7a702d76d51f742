"""Candidates: the ways to close what a spec leaves open, of which some will be legal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine_builder.checkpoint import Checkpoint
from engine_builder.contract.images import images_with
from engine_builder.contract.versions import LAST_ENGINE_VERSION, VLLM_VERSION
from engine_builder.plan.precision_rules import EIGHT_BIT_FLOAT, PRECISIONS
from engine_builder.plan.size_rules import RANKS, splits
from engine_builder.shape import Shape
from model_registry.engine_specs import BuildLane, EngineSpec, KvPrecision, Precision
from model_registry.knobs import knobs_of
from router.goodput import Ask
from router.gpus import GPUS, Gpu

MOST_BATCH = 1024
"""Beyond it a spec has to say so itself: slots take memory, and steps grow long."""
DEFAULT_STEP_TOKENS = 8192
"""TensorRT-LLM's own; where nothing is known of the engine's pace."""
LEAST_STEP_TOKENS = 1024
MOST_STEP_TOKENS = 16_384
STAGES = (1, 2, 4)
MOST_GPUS = 8
"""Of a replica, unless asked otherwise: a node's."""


def ask_of(spec: EngineSpec) -> Ask:
    """The requests that it is for, and their targets: the workload's, else the profile's."""
    knobs, workload = knobs_of(spec.profile), spec.workload
    return Ask(
        workload.input_tokens,
        workload.output_tokens,
        workload.ttft_s or knobs.ttft_target_s,
        workload.itl_s or knobs.itl_target_s,
    )


def quantized_as(config: Mapping[str, Any]) -> Precision | None:
    """What a checkpoint's weights are already, by its config; None: 16 bits, or of a kind not known here."""
    section = config.get("quantization_config") or {}
    method = str(section.get("quant_method", "")).lower()
    algorithm = str((section.get("quantization") or section).get("quant_algo", "")).upper()
    if method == "awq":
        return "int4-awq"
    if method == "fp8" or (method == "modelopt" and algorithm == "FP8"):
        return "fp8"
    if method == "modelopt" and algorithm == "NVFP4":
        return "nvfp4"
    return None


def sixteen_bits(config: Mapping[str, Any]) -> Precision:
    """The checkpoint's own type; bf16 where it does not say, or says 32 bits."""
    kind = config.get("torch_dtype") or config.get("dtype")
    return "fp16" if kind == "float16" else "bf16"


def usual_precisions(spec: EngineSpec, checkpoint: Checkpoint) -> tuple[Precision, ...]:
    """Those that are chosen without being asked for: the checkpoint's own 16 bits, and FP8.

    Fewer bits, and SmoothQuant, cost quality more often than not: who wants them names them.
    """
    if spec.precision is not None:
        return (spec.precision,)
    already = quantized_as(checkpoint.config)
    return (already,) if already is not None else (sixteen_bits(checkpoint.config), "fp8")


def in_lane(spec: EngineSpec, lane: BuildLane) -> EngineSpec:
    """The same, for another lane, with a version and a cache that the lane has."""
    if lane == spec.lane:
        return spec
    version = spec.version
    if lane == "vllm":
        version = VLLM_VERSION
    elif spec.lane == "vllm" or not images_with(version):
        version = LAST_ENGINE_VERSION
    return spec.model_copy(update={"lane": lane, "version": version, "fp8_context_fmha": None})


def candidates(spec: EngineSpec, checkpoint: Checkpoint, most_gpus: int = MOST_GPUS) -> Iterator[EngineSpec]:
    """Specs that say precision, KV cache and split; legal or not."""
    gpu = GPUS.get(spec.gpu_class)
    for precision in _precisions(spec, checkpoint):
        for ranks, stages in _splits(spec, checkpoint.shape, gpu, most_gpus):
            yield spec.model_copy(
                update={
                    "precision": precision,
                    "kv_cache": spec.kv_cache or _kv_cache(precision, gpu),
                    "tensor_parallel": ranks,
                    "pipeline_parallel": stages,
                    "scheduler_policy": spec.scheduler_policy
                    or knobs_of(spec.profile).triton.batch_scheduler_policy,
                }
            )


def closed(spec: EngineSpec, batch: int, step_tokens: int, longest: int | None = None) -> EngineSpec:
    """A candidate with the rest: requests at once, tokens of a step, attention in FP8 where it goes.

    `longest`: its `max_seq_len`, which stays open without one.
    """
    gpu = GPUS.get(spec.gpu_class)
    fp8_attention = (
        spec.lane == "trt-engine"
        and spec.precision in EIGHT_BIT_FLOAT
        and (gpu is None or gpu.sm >= 89)
        and (not spec.paged_context_fmha or spec.kv_cache == "fp8")
    )
    guessed = 1 + (spec.speculative.max_draft_len if spec.speculative is not None else 0)
    least = batch * spec.max_beam_width * guessed
    if not spec.chunked_context:
        least = max(least, spec.workload.input_tokens)
    return spec.model_copy(
        update={
            "max_batch_size": spec.max_batch_size or batch,
            "max_seq_len": spec.max_seq_len or longest,
            "max_num_tokens": spec.max_num_tokens or max(step_tokens, least),
            "fp8_context_fmha": fp8_attention if spec.fp8_context_fmha is None else spec.fp8_context_fmha,
        }
    )


def step_tokens(prefill_tokens_per_s: float, itl_s: float) -> int:
    """The largest power of two that is computed within the time that other answers may wait for a token."""
    tokens = LEAST_STEP_TOKENS
    while tokens < MOST_STEP_TOKENS and 2 * tokens <= prefill_tokens_per_s * itl_s:
        tokens *= 2
    return tokens


def rounded(batch: int, most: int) -> int:
    """Up to a round number, at most so many: engines are tuned for a few sizes, not for each."""
    return min(most, 1 << (batch - 1).bit_length() if batch <= 64 else -(-batch // 16) * 16)


def _precisions(spec: EngineSpec, checkpoint: Checkpoint) -> tuple[Precision, ...]:
    usual = usual_precisions(spec, checkpoint)
    if spec.precision is not None or len(usual) == 1:
        return usual
    return usual + tuple(
        one for one in PRECISIONS[spec.lane] if one not in (*usual, "bf16", "fp16", "int8-wo", "int4-wo")
    )


def _kv_cache(precision: Precision, gpu: Gpu | None) -> KvPrecision:
    return "fp8" if precision in EIGHT_BIT_FLOAT and gpu is not None and gpu.sm >= 89 else "auto"


def _splits(spec: EngineSpec, shape: Shape, gpu: Gpu | None, most: int) -> Iterator[tuple[int, int]]:
    """Stages are tried where ranks are dear (no NVLink), used up (a node is full), or asked for."""
    if spec.tensor_parallel is not None:
        all_ranks: tuple[int, ...] = (spec.tensor_parallel,)
    elif gpu is None:
        all_ranks = (1,)
    else:
        all_ranks = tuple(one for one in RANKS if one <= most and splits(shape, one))
    for ranks in all_ranks:
        if spec.pipeline_parallel is not None:
            yield ranks, spec.pipeline_parallel
            continue
        dear = gpu is not None and (gpu.link_gb_per_s < 100 or ranks >= gpu.per_node)
        for stages in STAGES if dear else STAGES[:1]:
            if shape.layers % stages == 0 and (stages == 1 or ranks * stages <= most):
                yield ranks, stages


def longest_sequence(spec: EngineSpec, shape: Shape, cached: int | None = None) -> int:
    """Twice the workload's requests, up to a power of two: paged, it costs little.

    At most what the model knows, and what a KV cache of so many tokens holds.
    """
    asked = spec.workload.input_tokens + spec.workload.output_tokens
    most = shape.max_positions if cached is None else min(shape.max_positions, cached)
    return max(asked, min(most, 1 << (2 * asked - 1).bit_length()))
