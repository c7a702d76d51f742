"""The `launch` step of lanes that compile nothing: a server's settings, written and held to the sheet. Pure.

What only the place of serving knows stands as a placeholder: `${checkpoint}` and `${tokenizer}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from engine_builder.contract import PINNED
from engine_builder.contract.precision import ACTIVATION_DTYPES
from engine_builder.repository.lookahead import sizes_for
from engine_builder.steps.sizes import precision
from engine_builder.steps.step import OUTPUT, Step, escaped
from engine_builder.steps.tools import CHECK, Tools
from model_registry.engine_specs import EngineSpec

CHECKPOINT, TOKENIZER = "${checkpoint}", "${tokenizer}"
COMMAND_FILE = "command.json"
_SERVE_FLAGS = {
    "tp_size": "tensor_parallel",
    "pp_size": "pipeline_parallel",
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "max_seq_len": "max_seq_len",
}
"""Of trtllm-serve, by the spec's field."""
_SPECULATIVE: Mapping[str, str] = {
    "draft_tokens_external": "DraftTarget",
    "lookahead_decoding": "Lookahead",
    "medusa": "Medusa",
    "eagle": "Eagle",
}
"""`decoding_type` of LLM() by the mode of a compiled engine; explicit drafts (ReDrafter) have none."""


def launch_step(
    spec: EngineSpec,
    needs: tuple[str, ...],
    inputs: Mapping[str, str],
    tools: Tools,
    *,
    quantized: bool,
) -> Step:
    """Writes the files of a lane, and fails when the contract sheet does not know a key in them.

    `quantized`: the checkpoint that is served says itself how it was quantized.
    """
    files, documents = _files(spec, quantized)
    return Step(
        name="launch",
        argv=(
            *tools.command(CHECK, ""),
            *("--version", PINNED if spec.lane == "vllm" else spec.version),
            *(f"{table}={OUTPUT}/{file}" for file, table in documents.items()),
        ),
        needs=needs,
        inputs={**inputs, **tools.inputs(spec)},
        files={name: escaped(text) for name, text in files.items()},
        expects=tuple(files),
        timeout_s=60.0,
    )


def llm_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Arguments of LLM() that a spec with nothing open decides."""
    found: dict[str, Any] = {
        "dtype": ACTIVATION_DTYPES.get(precision(spec), "auto"),
        "tensor_parallel_size": spec.tensor_parallel,
        "pipeline_parallel_size": spec.pipeline_parallel,
        "max_batch_size": spec.max_batch_size,
        "max_num_tokens": spec.max_num_tokens,
        "max_seq_len": spec.max_seq_len,
        "max_beam_width": spec.max_beam_width,
        "enable_chunked_prefill": spec.chunked_context,
        "kv_cache_config": {
            "enable_block_reuse": spec.kv_reuse,
            "free_gpu_memory_fraction": spec.kv_fraction,
            "tokens_per_block": spec.tokens_per_block,
            "dtype": spec.kv_cache or "auto",
        },
        "scheduler_config": {"capacity_scheduler_policy": str(spec.scheduler_policy).upper()},
    }
    if spec.lora is not None:
        modules = list(spec.lora.target_modules)
        found["enable_lora"] = True
        found["lora_config"] = {"max_lora_rank": spec.lora.max_rank, "lora_target_modules": modules}
    if spec.speculative is not None:
        found["speculative_config"] = _speculative(spec)
    return found


def _speculative(spec: EngineSpec) -> dict[str, Any]:
    speculative = spec.speculative
    assert speculative is not None
    if speculative.mode not in _SPECULATIVE:
        raise ValueError(f"{speculative.mode} has no counterpart in the LLM API; choose another mode")
    found: dict[str, Any] = {"decoding_type": _SPECULATIVE[speculative.mode]}
    if speculative.mode == "lookahead_decoding":
        sizes = sizes_for(speculative.max_draft_len)
        return {
            **found,
            "max_window_size": sizes.window,
            "max_ngram_size": sizes.ngram,
            "max_verification_set_size": sizes.verification,
        }
    found["max_draft_len"] = speculative.max_draft_len
    if speculative.draft_checkpoint is not None:
        found["speculative_model_dir"] = speculative.draft_checkpoint
    return found


def model_yaml(spec: EngineSpec) -> dict[str, Any]:
    """`1/model.yaml` of Triton's `llmapi` model."""
    places = {"model": CHECKPOINT, "tokenizer": TOKENIZER}
    triton = {"max_batch_size": 0, "decoupled": True}
    return {**places, "backend": "pytorch", **llm_arguments(spec), "triton_config": triton}


def trtllm_serve_argv(spec: EngineSpec) -> list[str]:
    """The command line of `trtllm-serve`; what has no flag is in serve.yaml, which wins."""
    flags = [(f"--{name}", str(getattr(spec, key))) for name, key in _SERVE_FLAGS.items()]
    return [
        *("trtllm-serve", CHECKPOINT, "--tokenizer", TOKENIZER, "--backend", "pytorch"),
        *("--host", "0.0.0.0", "--port", "8000"),
        *(word for flag in flags for word in flag),
        *("--kv_cache_free_gpu_memory_fraction", f"{spec.kv_fraction:g}"),
        *("--extra_llm_api_options", "serve.yaml"),
    ]


def vllm_arguments(spec: EngineSpec, quantized: bool) -> dict[str, Any]:
    """vLLM's engine arguments, by the names that `model.json` has."""
    found: dict[str, Any] = {
        "model": CHECKPOINT,
        "tokenizer": TOKENIZER,
        "dtype": ACTIVATION_DTYPES.get(precision(spec), "auto"),
        "kv_cache_dtype": spec.kv_cache or "auto",
        "tensor_parallel_size": spec.tensor_parallel,
        "pipeline_parallel_size": spec.pipeline_parallel,
        "max_num_seqs": spec.max_batch_size,
        "max_num_batched_tokens": spec.max_num_tokens,
        "max_model_len": spec.max_seq_len,
        "gpu_memory_utilization": spec.kv_fraction,
        "enable_prefix_caching": spec.kv_reuse,
        "enable_chunked_prefill": spec.chunked_context,
    }
    if precision(spec) == "fp8" and not quantized:
        found["quantization"] = "fp8"  # which vLLM makes while it loads
    if spec.lora is not None:
        found |= {"enable_lora": True, "max_lora_rank": spec.lora.max_rank}
    return found


def vllm_argv(spec: EngineSpec, quantized: bool) -> list[str]:
    """The command line of `vllm serve`."""
    argv = ["vllm", "serve", CHECKPOINT, "--served-model-name", spec.model or spec.name]
    argv += ["--host", "0.0.0.0", "--port", "8000"]
    for name, value in vllm_arguments(spec, quantized).items():
        flag = "--" + name.replace("_", "-")
        if name == "model":
            continue
        if isinstance(value, bool):
            switch = flag if value else flag.replace("--enable", "--no-enable")
            argv.append(switch)
        else:
            argv += [flag, str(value)]
    return argv


def _files(spec: EngineSpec, quantized: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Files by name, and the table of the contract that each is held to."""
    if spec.lane == "llmapi":
        return {"model.yaml": _yaml(model_yaml(spec))}, {"model.yaml": "model.yaml"}
    if spec.lane == "trtllm-serve":
        return (
            {"serve.yaml": _yaml(llm_arguments(spec)), COMMAND_FILE: _json(trtllm_serve_argv(spec))},
            {"serve.yaml": "LLM", COMMAND_FILE: "trtllm-serve"},
        )
    return (
        {
            "model.json": _json(vllm_arguments(spec, quantized)),
            COMMAND_FILE: _json(vllm_argv(spec, quantized)),
        },
        {"model.json": "AsyncEngineArgs", COMMAND_FILE: "vllm serve"},
    )


def _yaml(document: Any) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"
