"""The Triton models that serve one built engine, with every parameter that its spec decides. Pure.

Parameters and their defaults: TensorRT-LLM's Triton backend at 1.2 (contract sheet §1.2). What only the
place of serving knows stands as a `${placeholder}`, which `engine_builder.package.locate` fills.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import yaml

from engine_builder.repository import schemas
from engine_builder.repository.configs import InstanceGroup, ModelSpec
from engine_builder.repository.lookahead import sizes_for
from engine_builder.repository.queues import SCHEDULER_POLICY, in_flight_queue
from engine_builder.repository.schemas import Dialect
from engine_builder.repository.tensors import Schema
from engine_builder.repository.text_models import ensemble_steps
from model_registry.engine_specs import EngineSpec
from model_registry.triton_queue import TritonQueue

Kind = Literal[
    "tensorrt_llm", "preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls", "llmapi", "vllm"
]
ROOT = "${engine_root}"
"""The folder of the engine, as its server sees it."""
CHECKPOINT = "${checkpoint}"
"""The checkpoint's folder as its server sees it, where the engine has no weights of its own."""
GPUS = "${gpu_device_ids}"
"""GPUs of the executor; unfilled: all that the process sees, as in the backend."""
ENGINE = f"{ROOT}/engine"
TOKENIZER = f"{ROOT}/tokenizer"
GUIDES_FILE = f"{TOKENIZER}/xgrammar_tokenizer_info.json"

CANCELLATION_CHECK_MS = 50
"""Half of the backend's own default: a slot that nobody waits for is free sooner."""
TEXT_INSTANCES = 4
BLS_INSTANCES = 16
"""At most. One instance serves one request at a time and is a process of its own."""
LORA_HOST_BYTES = 1 << 30
LORA_GPU_FRACTION = 0.05

_DECODING_MODES: Mapping[str, str] = {
    "medusa": "medusa",
    "lookahead_decoding": "lookahead",
    "explicit_draft_tokens": "redrafter",
    "eagle": "eagle",
}


class Finish(Protocol):
    """Makes a model loadable where it is to run: gives it Python files, or another thing underneath."""

    def __call__(self, kind: Kind, model: ModelSpec, built: EngineSpec) -> ModelSpec: ...


def as_it_is(kind: Kind, model: ModelSpec, built: EngineSpec) -> ModelSpec:  # noqa: ARG001
    """Leaves a model as the tables have it."""
    return model


def engine_models(
    spec: EngineSpec, queue: TritonQueue, *, guides: bool, weights: str, settings: Mapping[str, Any]
) -> dict[Kind, ModelSpec]:
    """The models of a decided spec by kind, steps before those that call them; none for `trtllm-serve`.

    `guides`: there is a tokenizer file for guided decoding. `weights`: the checkpoint's folder, of lanes that
    compile nothing. `settings`: those of their server, as the `launch` step wrote them.
    """
    match spec.lane:
        case "trt-engine":
            return _trt_engine(spec, queue, guides)
        case "llmapi":
            return {"llmapi": _llmapi(weights, settings)}
        case "vllm":
            return {"vllm": _vllm(weights, settings)}
    return {}


def dialect_of(version: str) -> Dialect:
    """Of the tensors: names changed between 0.19 and 1.0."""
    return "0.19" if version.startswith("0.") else "1.x"


def _trt_engine(spec: EngineSpec, queue: TritonQueue, guides: bool) -> dict[Kind, ModelSpec]:
    dialect, batch = dialect_of(spec.version), _decided(spec.max_batch_size, "max_batch_size")
    steps = ensemble_steps(
        preprocessing="preprocessing",
        tensorrt_llm="tensorrt_llm",
        postprocessing="postprocessing",
        dialect=dialect,
    )
    return {
        "tensorrt_llm": ModelSpec(
            "tensorrt_llm",
            schemas.tensorrt_llm(dialect),
            "tensorrtllm",
            max_batch_size=batch,
            decoupled=True,
            parameters=engine_parameters(spec, queue, guides),
            queue=in_flight_queue(queue, batch),
        ),
        "preprocessing": _python(
            "preprocessing",
            schemas.PREPROCESSING,
            batch,
            {"tokenizer_dir": TOKENIZER, "add_special_tokens": "true"},
            min(batch, TEXT_INSTANCES),
        ),
        "postprocessing": _python(
            "postprocessing",
            schemas.POSTPROCESSING,
            batch,
            {"tokenizer_dir": TOKENIZER, "skip_special_tokens": "true"},
            min(batch, TEXT_INSTANCES),
        ),
        "ensemble": ModelSpec("ensemble", schemas.ensemble(dialect), max_batch_size=batch, steps=steps),
        "tensorrt_llm_bls": _python(
            "tensorrt_llm_bls",
            schemas.tensorrt_llm_bls(dialect),
            batch,
            {
                "accumulate_tokens": "true",  # deltas cut characters of several tokens (sheet §1.5)
                "tensorrt_llm_model_name": "tensorrt_llm",
                "preprocessing_model_name": "preprocessing",
                "postprocessing_model_name": "postprocessing",
            },
            min(batch, BLS_INSTANCES),
            decoupled=True,
        ),
    }


def engine_parameters(spec: EngineSpec, queue: TritonQueue, guides: bool) -> dict[str, str]:
    """Of the bare model: what the spec decides. What the backend's own default does is left out."""
    paged = spec.paged_context_fmha and spec.kv_cache != "int8"
    parameters = {
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": ENGINE,
        "gpu_device_ids": GPUS,
        "max_beam_width": str(spec.max_beam_width),
        SCHEDULER_POLICY: spec.scheduler_policy or queue.batch_scheduler_policy,
        "kv_cache_free_gpu_mem_fraction": f"{spec.kv_fraction:g}",
        "enable_kv_cache_reuse": flag(spec.kv_reuse and paged),
        "enable_chunked_context": flag(spec.chunked_context and paged),
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": str(CANCELLATION_CHECK_MS),
        "decoding_mode": _decoding_mode(spec),
    }
    if spec.speculative is not None and spec.speculative.mode == "lookahead_decoding":
        sizes = sizes_for(spec.speculative.max_draft_len)
        parameters |= {
            "lookahead_window_size": str(sizes.window),
            "lookahead_ngram_size": str(sizes.ngram),
            "lookahead_verification_set_size": str(sizes.verification),
        }
    if spec.lora is not None:
        parameters |= {
            "lora_cache_max_adapter_size": str(spec.lora.max_rank),
            "lora_cache_optimal_adapter_size": str(min(8, spec.lora.max_rank)),
            "lora_cache_gpu_memory_fraction": f"{LORA_GPU_FRACTION:g}",
            "lora_cache_host_memory_bytes": str(LORA_HOST_BYTES),
        }
    if guides:
        parameters |= {"guided_decoding_backend": "xgrammar", "xgrammar_tokenizer_info_path": GUIDES_FILE}
    return parameters


def _decoding_mode(spec: EngineSpec) -> str:
    if spec.speculative is not None and spec.speculative.mode in _DECODING_MODES:
        return _DECODING_MODES[spec.speculative.mode]
    return "beam_search" if spec.max_beam_width > 1 else "top_k_top_p"


def _llmapi(weights: str, settings: Mapping[str, Any]) -> ModelSpec:
    whole = {
        **settings,
        "model": weights,
        "tokenizer": TOKENIZER,
        "triton_config": {
            "max_batch_size": 0,
            "decoupled": True,
            "cancellation_check_period_ms": CANCELLATION_CHECK_MS,
        },
    }
    return ModelSpec(
        "tensorrt_llm",
        schemas.llmapi("1.x"),
        "python",
        decoupled=True,
        files={"model.yaml": yaml.safe_dump(whole, sort_keys=False)},
    )


def _vllm(weights: str, settings: Mapping[str, Any]) -> ModelSpec:
    whole = {**settings, "model": weights, "tokenizer": TOKENIZER}
    return ModelSpec(
        "vllm",
        schemas.VLLM,
        "vllm",
        decoupled=True,
        instances=InstanceGroup(1, "KIND_MODEL"),
        files={"model.json": json.dumps(whole, indent=2) + "\n"},
    )


def _python(
    name: str,
    schema: Schema,
    batch: int,
    parameters: Mapping[str, str],
    instances: int,
    decoupled: bool = False,
) -> ModelSpec:
    return ModelSpec(
        name,
        schema,
        "python",
        max_batch_size=batch,
        decoupled=decoupled,
        parameters=parameters,
        instances=InstanceGroup(instances),
    )


def _decided(value: int | None, name: str) -> int:
    if value is None:
        raise ValueError(f"the spec leaves {name} open; resolve it first")
    return value


def flag(value: bool) -> str:
    """As TensorRT-LLM's models read it."""
    return "true" if value else "false"
