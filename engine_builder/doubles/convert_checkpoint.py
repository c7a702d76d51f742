"""The double of `convert_checkpoint.py`: a Hugging Face checkpoint to a TensorRT-LLM one.

Also of the scripts that convert Medusa's, EAGLE's and ReDrafter's heads along. Those are left out: guessing
ahead changes how fast an engine answers and not what, and a CPU engine does without.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from engine_builder.contract import PINNED
from engine_builder.doubles.checkpoint_writer import Quantization, write_checkpoint
from engine_builder.doubles.hf_folder import HfFolder
from engine_builder.doubles.layout import Ranks
from engine_builder.doubles.parsing import parse
from engine_builder.doubles.telling import VERSION, say
from engine_builder.errors import CheckpointError

PROGRAM = "convert_checkpoint.py"
WITH_HEADS = tuple(f"{name}/{PROGRAM}" for name in ("medusa", "eagle", "redrafter"))
_WEIGHT_ONLY = {"int8": "W8A16", "int4": "W4A16", "int4_awq": "W4A16_AWQ"}
_SMOOTHED = {
    (False, False): "W8A8_SQ_PER_TENSOR_PLUGIN",
    (False, True): "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    (True, False): "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    (True, True): "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
}
"""By --per_channel and --per_token."""
_ABSENT = {
    "pp_size": 1,
    "cp_size": 1,
    "fp8_kv_cache": False,
    "int8_kv_cache": False,
    "use_weight_only": False,
    "smoothquant": None,
    "use_fp8": False,
    "use_nvfp4": False,
}
"""What options that not all of the scripts have stand at."""


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Converts. Raises CheckpointError."""
    options = argparse.Namespace(**_ABSENT)
    options.__dict__.update(vars(parse(program, arguments, os.environ.get(VERSION) or PINNED)))
    say(f"TensorRT-LLM version: {os.environ.get(VERSION) or PINNED} (emulated)")
    if options.model_dir is None:
        raise CheckpointError("no --model_dir", "name the folder of a Hugging Face checkpoint")
    if options.cp_size != 1:
        raise CheckpointError("--cp_size above 1 cannot be doubled", "leave it at 1")
    if options.embedding_sharding_dim != 0:
        raise CheckpointError("--embedding_sharding_dim 1 cannot be doubled", "shard along the vocabulary: 0")
    write_checkpoint(
        HfFolder.open(Path(options.model_dir)),
        Path(options.output_dir),
        Ranks(options.tp_size, options.pp_size, options.use_parallel_embedding),
        options.dtype,
        _quantization(options),
    )


def _quantization(options: argparse.Namespace) -> Quantization:
    if options.int8_kv_cache and options.fp8_kv_cache:
        raise CheckpointError("--int8_kv_cache and --fp8_kv_cache exclude each other", "give one of them")
    kv = "INT8" if options.int8_kv_cache else "FP8" if options.fp8_kv_cache else None
    if options.use_weight_only:
        precision = options.weight_only_precision
        group = options.group_size if precision == "int4_awq" else None
        return Quantization(_WEIGHT_ONLY.get(precision, precision.upper()), kv, group)
    if options.smoothquant is not None:
        return Quantization(_SMOOTHED[options.per_channel, options.per_token], kv)
    if options.use_fp8:
        return Quantization("FP8", kv)
    return Quantization("NVFP4" if options.use_nvfp4 else None, kv)
