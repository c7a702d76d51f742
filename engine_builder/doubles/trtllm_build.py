"""The double of `trtllm-build`: a TensorRT-LLM checkpoint to an engine directory for the CPU engines.

Goes by the real one's rules at build time where they change the engine (contract sheet §4.1): FP8 context
FMHA and paged context FMHA are switched off where they cannot be, with a warning.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_builder.contract import PINNED, table
from engine_builder.doubles.checkpoint_writer import STORED
from engine_builder.doubles.engine_dir import HEADER, ranks_of, shape_of
from engine_builder.doubles.hf_folder import read_json
from engine_builder.doubles.parsing import parse
from engine_builder.doubles.telling import VERSION, say
from engine_builder.doubles.tensor_files import Tensor, read_tensors, write_json, write_tensors
from engine_builder.errors import CheckpointError

PROGRAM = "trtllm-build"
_FP8_ALGOS = ("FP8", "W4A8_AWQ", "NVFP4")
_ON_OFF = {"enable": True, "disable": False}


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds. Raises CheckpointError."""
    version = os.environ.get(VERSION) or PINNED
    options = parse(PROGRAM, arguments, version)
    say(f"TensorRT-LLM version: {version} (emulated)")
    if options.checkpoint_dir is None:
        raise CheckpointError("no --checkpoint_dir", "name the folder that convert_checkpoint.py wrote")
    if options.build_config or options.model_cls_file:
        raise CheckpointError("--build_config and --model_cls_file cannot be doubled", "use flags")
    source, output = Path(options.checkpoint_dir), Path(options.output_dir)
    pretrained = read_json(source / "config.json")
    try:
        shape_of(pretrained)
        world = ranks_of(pretrained).count
    except KeyError as error:
        raise CheckpointError(
            f"{source}/config.json lacks {error}: no TensorRT-LLM checkpoint",
            "run convert_checkpoint.py or quantize.py first",
        ) from error
    build = _build_config(options, pretrained)
    if not options.dry_run:
        output.mkdir(parents=True, exist_ok=True)
        for rank in range(world):
            _build_rank(source / f"rank{rank}.safetensors", output / f"rank{rank}.engine", pretrained)
            say(f"Build phase peak memory of rank {rank} of {world} reached; engine serialized")
        whole = {"version": version, "pretrained_config": pretrained, "build_config": build}
        write_json(output / "config.json", {"runtime": "emulated", **whole})
    say(f"Total time of building all engines: {world} ranks")


def _build_rank(source: Path, target: Path, pretrained: Mapping[str, Any]) -> None:
    """The weights as the engine computes with them: scales and small types stay, bfloat16 becomes half."""
    wide = "F32" if STORED[pretrained["dtype"]] == "F32" else "F16"
    tensors = {
        name: Tensor.of(tensor.floats(), wide) if tensor.dtype == "BF16" else tensor
        for name, tensor in read_tensors(source).items()
    }
    write_tensors(target, tensors, HEADER)


def _build_config(options: argparse.Namespace, pretrained: Mapping[str, Any]) -> dict[str, Any]:
    longest = options.max_seq_len or pretrained["max_position_embeddings"]
    if options.max_num_tokens < options.max_batch_size:
        raise CheckpointError(
            f"--max_num_tokens {options.max_num_tokens} is below --max_batch_size {options.max_batch_size}",
            "raise it: each running request takes a token of every step",
        )
    lora = options.lora_plugin not in (None, "disable")
    return {
        "max_input_len": options.max_input_len,
        "max_seq_len": longest,
        "opt_batch_size": 8,
        "max_batch_size": options.max_batch_size,
        "max_beam_width": options.max_beam_width,
        "max_num_tokens": options.max_num_tokens,
        "opt_num_tokens": options.opt_num_tokens,
        "max_prompt_embedding_table_size": options.max_prompt_embedding_table_size,
        "kv_cache_type": (options.kv_cache_type or "paged").upper(),
        "gather_context_logits": options.gather_context_logits or options.gather_all_token_logits,
        "gather_generation_logits": options.gather_all_token_logits,
        "strongly_typed": True,
        "max_draft_len": options.max_draft_len,
        "speculative_decoding_mode": options.speculative_decoding_mode,
        "lora_config": {
            "lora_dir": options.lora_dir or [],
            "lora_ckpt_source": options.lora_ckpt_source,
            "max_lora_rank": options.max_lora_rank,
            "lora_target_modules": options.lora_target_modules or [],
        }
        if lora
        else None,
        "weight_streaming": options.weight_streaming,
        "use_strip_plan": options.strip_plan,
        "max_encoder_input_len": options.max_encoder_input_len,
        "plugin_config": _plugins(options, pretrained["quantization"]),
    }


def _plugins(options: argparse.Namespace, quantization: Mapping[str, Any]) -> dict[str, Any]:
    names = [
        option.name.lstrip("-")
        for option in table(PROGRAM).options
        if option.name.endswith("_plugin") or set(option.choices) == set(_ON_OFF)
    ]
    found = {
        name: _ON_OFF.get(value, value) for name in names if (value := getattr(options, name)) != "disable"
    }
    found |= {name: False for name in names if getattr(options, name) == "disable"}
    found["tokens_per_block"] = options.tokens_per_block
    algo, kv = quantization["quant_algo"], quantization["kv_cache_quant_algo"]
    if kv == "INT8" or (kv == "FP8" and algo not in _FP8_ALGOS):
        _switch_off(found, "use_paged_context_fmha", f"{kv} KV cache with {algo or 'unquantized'} weights")
    if algo not in _FP8_ALGOS:
        _switch_off(found, "use_fp8_context_fmha", f"{algo or 'unquantized'} weights")
    elif found["use_paged_context_fmha"] and kv != "FP8":
        _switch_off(found, "use_fp8_context_fmha", "paged context FMHA wants an FP8 KV cache for it")
    elif kv == "FP8":
        found["use_fp8_context_fmha"] = True
    return found


def _switch_off(plugins: dict[str, Any], name: str, reason: str) -> None:
    if plugins[name]:
        say(f"Warning: {name} is switched off: {reason}")
    plugins[name] = False
