"""Lane rules: versions, architectures, speculation, adapters and beams that a lane has. Pure.

Sources: contract sheet §1.2, §1.6, §4.1, §5; TensorRT-LLM's list of models of the engine path and of the
PyTorch backend's speculation; vLLM's engine arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from engine_builder.contract.images import images_with
from engine_builder.contract.versions import (
    FIRST_PYTORCH_VERSION,
    LAST_ENGINE_VERSION,
    is_candidate,
    newer,
)
from engine_builder.plan.findings import Finding
from engine_builder.shape import Shape
from model_registry.engine_specs import BuildLane, EngineSpec, Lora, Precision, Speculative, SpeculativeMode

CONVERTED = frozenset(
    [
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Phi3ForCausalLM",
    ]
)
"""Architectures of the gated, grouped-query kind that TensorRT-LLM 1.2.1 has a converter for."""
LORA_MODULES = frozenset(
    [
        "attn_qkv",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_dense",
        "mlp_h_to_4h",
        "mlp_4h_to_h",
        "mlp_gate",
        "moe_h_to_4h",
        "moe_4h_to_h",
        "moe_gate",
        "moe_router",
    ]
)
VLLM_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_ALL: tuple[SpeculativeMode, ...] = (
    "draft_tokens_external",
    "lookahead_decoding",
    "medusa",
    "explicit_draft_tokens",
    "eagle",
)
_PYTORCH: tuple[SpeculativeMode, ...] = ("draft_tokens_external", "eagle")
SPECULATION: Mapping[BuildLane, tuple[SpeculativeMode, ...]] = MappingProxyType(
    {
        "trt-engine": _ALL,
        "llmapi": _PYTORCH,
        "trtllm-serve": _PYTORCH,
        "vllm": (),  # its launch configuration sets none up
    }
)


_CONVERTED_WITH_HEADS: tuple[Precision, ...] = ("bf16", "fp16", "int8-wo", "int4-wo", "int8-sq")
HEADS: Mapping[SpeculativeMode, tuple[Precision, ...]] = MappingProxyType(
    {
        "medusa": _CONVERTED_WITH_HEADS,
        "eagle": _CONVERTED_WITH_HEADS,
        "explicit_draft_tokens": ("bf16", "fp16"),
    }
)
"""Precisions of compiled engines with heads."""


def check(spec: EngineSpec, shape: Shape) -> Iterator[Finding]:
    """What these rules say."""
    yield from _version(spec)
    yield from _architecture(spec, shape)
    if spec.speculative is not None:
        yield from _speculation(spec, spec.speculative)
        yield from _with_heads(spec, spec.speculative.mode)
    if spec.lora is not None:
        yield from _lora(spec, spec.lora)
    if spec.max_beam_width > 1:
        yield from _beams(spec)


def _version(spec: EngineSpec) -> Iterator[Finding]:
    if spec.lane == "vllm":
        if images_with(spec.version):
            yield Finding(
                "vllm-version",
                "version",
                f"{spec.version} is TensorRT-LLM's; in lane vllm it names vLLM's",
                "say which vLLM you run",
                "warning",
            )
        return
    if spec.lane == "trt-engine" and newer(spec.version, LAST_ENGINE_VERSION):
        yield Finding(
            "lane-version",
            "version",
            f"TensorRT-LLM {spec.version} compiles no engines: the path ended with {LAST_ENGINE_VERSION}",
            f"use {LAST_ENGINE_VERSION} or older, or lane llmapi",
        )
    elif spec.lane != "trt-engine" and newer(FIRST_PYTORCH_VERSION, spec.version):
        yield Finding(
            "lane-version",
            "version",
            f"before {FIRST_PYTORCH_VERSION} lane {spec.lane} ran compiled engines, which plans do not know",
            f"use {FIRST_PYTORCH_VERSION} or newer, or lane trt-engine",
        )
    else:
        yield from _image(spec)


def _image(spec: EngineSpec) -> Iterator[Finding]:
    images = images_with(spec.version)
    if images:
        surely = spec.version == images[-1].version
        yield Finding(
            "image",
            "version",
            f"{images[-1].reference} {'holds' if surely else 'may hold'} TensorRT-LLM {spec.version} "
            f"(driver from {images[-1].driver or 'not known'} on)",
            "build and serve with the same image",
            "note",
        )
    else:
        first, *_, last = images_with(LAST_ENGINE_VERSION)
        what = "is a release candidate that" if is_candidate(spec.version) else "is one that"
        yield Finding(
            "image",
            "version",
            f"{spec.version} {what} no Triton image is known to hold",
            f"use {LAST_ENGINE_VERSION} (images {first.tag} to {last.tag}), or make sure that builder and "
            "server agree",
            "warning",
        )


def _architecture(spec: EngineSpec, shape: Shape) -> Iterator[Finding]:
    if shape.architecture in CONVERTED:
        return
    engine = spec.lane == "trt-engine"
    yield Finding(
        "architecture",
        "checkpoint",
        f"{shape.architecture} is not known"
        + (": TensorRT-LLM has no converter for it here" if engine else "; its sizes are taken for Llama's"),
        f"known are {', '.join(sorted(CONVERTED))}" + ("; other lanes may run it" if engine else ""),
        "error" if engine else "warning",
    )


def _speculation(spec: EngineSpec, speculative: Speculative) -> Iterator[Finding]:
    mode = speculative.mode
    if mode not in SPECULATION[spec.lane]:
        yield Finding(
            "speculation-lane",
            "speculative.mode",
            f"lane {spec.lane} has no {mode}",
            f"it has {', '.join(SPECULATION[spec.lane])}" if SPECULATION[spec.lane] else "leave it out",
        )
    if mode == "lookahead_decoding":
        if speculative.draft_checkpoint is not None:
            yield Finding(
                "speculation-draft",
                "speculative.draft_checkpoint",
                "lookahead_decoding guesses from the model itself and takes no draft",
                "leave it out",
            )
    elif speculative.draft_checkpoint is None and not (
        mode == "draft_tokens_external" and spec.lane == "trt-engine"  # drafts come with the requests
    ):
        yield Finding(
            "speculation-draft",
            "speculative.draft_checkpoint",
            f"{mode} needs the model or the heads that guess",
            "name their checkpoint",
        )
    if mode == "draft_tokens_external" and spec.lane == "trt-engine" and not spec.kv_reuse:
        yield Finding(
            "speculation-reuse",
            "kv_reuse",
            "draft_tokens_external sends the prompt with each guess, and computes it again without reuse",
            "switch it on",
        )


def _with_heads(spec: EngineSpec, mode: SpeculativeMode) -> Iterator[Finding]:
    """Heads are converted together with the model, by scripts that know fewer precisions."""
    if spec.lane != "trt-engine" or mode not in HEADS:
        return
    possible = HEADS[mode]
    if spec.precision is not None and spec.precision not in possible:
        yield Finding(
            "speculation-precision",
            "precision",
            f"a model with {mode} heads is not converted to {spec.precision}",
            f"use {', '.join(possible)}",
        )
    if spec.kv_cache not in (None, "auto"):
        yield Finding(
            "speculation-precision",
            "kv_cache",
            f"{mode} goes with kv_cache auto, not {spec.kv_cache}",
            "use auto",
        )
    if mode == "explicit_draft_tokens" and (spec.pipeline_parallel or 1) > 1:
        yield Finding("speculation-stages", "pipeline_parallel", f"{mode} has no pipeline stages", "use 1")


def _lora(spec: EngineSpec, lora: Lora) -> Iterator[Finding]:
    if spec.lane == "vllm":
        if lora.max_rank not in VLLM_LORA_RANKS:
            higher = [rank for rank in VLLM_LORA_RANKS if rank > lora.max_rank] or [VLLM_LORA_RANKS[-1]]
            yield Finding(
                "lora-rank",
                "lora.max_rank",
                f"vLLM takes {', '.join(map(str, VLLM_LORA_RANKS))}, not {lora.max_rank}",
                f"use {higher[0]}",
            )
        return
    unknown = [name for name in lora.target_modules if name not in LORA_MODULES]
    if unknown:
        yield Finding(
            "lora-modules",
            "lora.target_modules",
            f"{', '.join(unknown)} are no modules of TensorRT-LLM's",
            f"they are {', '.join(sorted(LORA_MODULES))}",
        )
    if spec.lane == "llmapi" and not newer(spec.version, LAST_ENGINE_VERSION):
        yield Finding(
            "lora-llmapi",
            "lora",
            f"Triton's llmapi model of {spec.version} takes no adapter with a request",
            "use lane trt-engine or trtllm-serve",
            "warning",
        )


def _beams(spec: EngineSpec) -> Iterator[Finding]:
    if spec.lane == "vllm":
        yield Finding("beam-lane", "max_beam_width", "vLLM's engine searches no beams", "use 1")
        return
    for field, on in (
        ("chunked_context", spec.chunked_context),
        ("speculative", spec.speculative is not None),
    ):
        if on:
            yield Finding(
                f"beam-{field.split('_')[0]}",
                "max_beam_width",
                f"a beam search of {spec.max_beam_width} does not go with {field}",
                f"use 1, or leave {field} out",
            )
