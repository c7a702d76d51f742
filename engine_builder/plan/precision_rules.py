"""Precision rules: which weights and KV caches a GPU, a lane and attention kernels go with. Pure.

Sources: TensorRT-LLM's support matrix and `builder.py` (contract sheet §4.1, §4.4), its PyTorch backend's
quantization page, vLLM's list of quantization methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from engine_builder.plan.findings import Finding
from model_registry.engine_specs import BuildLane, EngineSpec, Precision
from router.gpus import Gpu

EIGHT_BIT_FLOAT: frozenset[Precision] = frozenset({"fp8", "nvfp4"})
"""Weights with which FP8 attention goes."""
INTEGER: frozenset[Precision] = frozenset({"int8-sq", "int8-wo", "int4-awq", "int4-wo"})
_TRT: tuple[Precision, ...] = ("bf16", "fp16", "fp8", "nvfp4", "int8-sq", "int8-wo", "int4-awq", "int4-wo")
_PYTORCH: tuple[Precision, ...] = ("bf16", "fp16", "fp8", "nvfp4", "int4-awq")
_VLLM: tuple[Precision, ...] = ("bf16", "fp16", "fp8", "nvfp4", "int8-sq", "int4-awq")
PRECISIONS: Mapping[BuildLane, tuple[Precision, ...]] = MappingProxyType(
    {"trt-engine": _TRT, "llmapi": _PYTORCH, "trtllm-serve": _PYTORCH, "vllm": _VLLM}
)
"""That a lane can run, widest first."""


def works_on(precision: Precision, gpu: Gpu, lane: BuildLane) -> bool:
    """Whether the architecture has what it takes."""
    return precision in PRECISIONS[lane] and _architecture_reason(precision, gpu, lane) is None


def check(spec: EngineSpec, gpu: Gpu | None) -> Iterator[Finding]:
    """What these rules say; what is open in the spec, and a GPU without figures, is passed over."""
    if spec.precision is not None:
        yield from _weights(spec, spec.precision, gpu)
    if spec.kv_cache is not None:
        yield from _kv_cache(spec, gpu)
    yield from _attention(spec, gpu)


def _weights(spec: EngineSpec, precision: Precision, gpu: Gpu | None) -> Iterator[Finding]:
    offered = PRECISIONS[spec.lane]
    if precision not in offered:
        lanes = [lane for lane, held in PRECISIONS.items() if precision in held]
        yield Finding(
            "lane-precision",
            "precision",
            f"lane {spec.lane} does not run {precision} weights",
            f"{spec.lane} runs {', '.join(offered)}; {precision} runs in {', '.join(lanes)}",
        )
    elif gpu is not None and (reason := _architecture_reason(precision, gpu, spec.lane)) is not None:
        others = [one for one in offered if works_on(one, gpu, spec.lane)]
        yield Finding(
            "precision-architecture",
            "precision",
            f"{spec.gpu_class} (SM {gpu.sm}) {reason}",
            f"use {', '.join(others)}, or another GPU",
        )


def _architecture_reason(precision: Precision, gpu: Gpu, lane: BuildLane) -> str | None:
    if precision == "fp8" and gpu.sm < 89:
        return "has no FP8 units, which came with Ada and Hopper (SM 89)"
    if precision == "nvfp4" and gpu.sm < 100:
        return "has no FP4 units, which came with Blackwell (SM 100)"
    if precision in INTEGER and lane == "trt-engine" and 100 <= gpu.sm < 120:
        return f"is one for which TensorRT-LLM's builder refuses {precision}, as all integer weights"
    return None


def _kv_cache(spec: EngineSpec, gpu: Gpu | None) -> Iterator[Finding]:
    if spec.kv_cache == "fp8" and gpu is not None and gpu.sm < 89:
        yield Finding(
            "kv-architecture",
            "kv_cache",
            f"{spec.gpu_class} (SM {gpu.sm}) has no FP8 units for an FP8 KV cache",
            "use auto",
        )
    if spec.kv_cache == "int8":
        yield from _int8_kv(spec, gpu)
    if spec.kv_cache == "fp8" and spec.lane == "trt-engine" and spec.precision is not None:
        lost = _lost_without_paged_fmha(spec)
        if spec.precision not in EIGHT_BIT_FLOAT and lost:
            yield Finding(
                "fp8-kv-weights",
                "kv_cache",
                f"an FP8 KV cache with {spec.precision} weights switches paged context FMHA off, "
                f"and with it {lost}",
                "quantize the weights to fp8 too, use kv_cache auto, or switch these off",
            )
    if spec.kv_cache == "auto" and spec.precision == "nvfp4":
        yield Finding(
            "nvfp4-kv",
            "kv_cache",
            "an NVFP4 KV cache would hold 3.6 times as many tokens, but is not offered: converter and "
            "benchmark tool of TensorRT-LLM disagree about it",
            "fp8 holds twice as many",
            "note",
        )


def _int8_kv(spec: EngineSpec, gpu: Gpu | None) -> Iterator[Finding]:
    if spec.lane != "trt-engine":
        yield Finding(
            "kv-lane", "kv_cache", f"lane {spec.lane} has no INT8 KV cache", "use auto, or fp8 from SM 89 on"
        )
        return
    if gpu is not None and 100 <= gpu.sm < 120:
        yield Finding(
            "kv-architecture",
            "kv_cache",
            f"TensorRT-LLM's builder refuses an INT8 KV cache on {spec.gpu_class} (SM {gpu.sm})",
            "use fp8",
        )
    if lost := _lost_without_paged_fmha(spec):
        yield Finding(
            "int8-kv-paged",
            "kv_cache",
            f"an INT8 KV cache switches paged context FMHA off, and with it {lost}",
            "use kv_cache auto (fp8 from SM 89 on), or switch these off",
        )


def _lost_without_paged_fmha(spec: EngineSpec) -> str:
    """What the spec wants and would silently not get."""
    wanted = {
        "paged_context_fmha": spec.paged_context_fmha,
        "kv_reuse": spec.kv_reuse,
        "chunked_context": spec.chunked_context,
    }
    return ", ".join(name for name, wants in wanted.items() if wants)


def _attention(spec: EngineSpec, gpu: Gpu | None) -> Iterator[Finding]:
    """FP8 attention over prompts: what the builder would drop, or force, without asking."""
    if spec.lane != "trt-engine":
        return
    if spec.fp8_context_fmha:
        reason, remedy = _fp8_attention_reason(spec, gpu)
        if reason:
            yield Finding("fp8-context-fmha", "fp8_context_fmha", reason, remedy)
    elif (
        spec.fp8_context_fmha is False
        and spec.paged_context_fmha
        and spec.kv_cache == "fp8"
        and spec.precision in EIGHT_BIT_FLOAT
    ):
        yield Finding(
            "fp8-context-fmha-forced",
            "fp8_context_fmha",
            "the builder switches it on: paged context FMHA over an FP8 KV cache has no other kernel",
            "leave it out, or use kv_cache auto",
            "warning",
        )


def _fp8_attention_reason(spec: EngineSpec, gpu: Gpu | None) -> tuple[str, str]:
    if gpu is not None and gpu.sm < 89:
        return f"{spec.gpu_class} (SM {gpu.sm}) has no FP8 units", "switch it off"
    if spec.precision is not None and spec.precision not in EIGHT_BIT_FLOAT:
        return (
            f"it needs weights in fp8 or nvfp4, not {spec.precision}",
            "switch it off, or use precision fp8",
        )
    if spec.paged_context_fmha and spec.kv_cache is not None and spec.kv_cache != "fp8":
        return f"with paged_context_fmha it needs kv_cache fp8, not {spec.kv_cache}", "use kv_cache fp8"
    return "", ""
