"""Writes TensorRT-LLM checkpoints from Hugging Face's: `rank{N}.safetensors` by rank, `config.json` last.

Whoever finds `config.json` finds the rest whole. Quantized are the linear layers of attention and of the
feed-forward network; embeddings, head and norms keep the activations' data type, as TensorRT-LLM has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine_builder.doubles.engine_dir import PART_NAMES
from engine_builder.doubles.hf_folder import HfFolder
from engine_builder.doubles.layout import MATRICES, Ranks, split
from engine_builder.doubles.quantizing import KINDS, quantize
from engine_builder.doubles.telling import say
from engine_builder.doubles.tensor_files import Tensor, write_json, write_tensors
from engine_builder.errors import CheckpointError

STORED = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class Quantization:
    """`quantization` of a checkpoint's config. `algo` None: none."""

    algo: str | None = None
    kv_cache_algo: str | None = None
    group: int | None = None
    """Inputs that share a scale; None: all of a row, or what the algorithm fixes."""

    def document(self) -> dict[str, Any]:
        """As in `config.json`."""
        return {
            "quant_algo": self.algo,
            "kv_cache_quant_algo": self.kv_cache_algo,
            "group_size": self.group,
            "has_zero_point": False,
            "pre_quant_scale": self.algo in ("W4A16_AWQ", "W4A8_AWQ"),
            "smoothquant_val": 0.5,
            "clamp_val": None,
            "exclude_modules": ["lm_head"] if self.algo else None,
        }


def write_checkpoint(
    source: HfFolder, output: Path, ranks: Ranks, dtype: str, quantization: Quantization
) -> None:
    """Converts one checkpoint. `dtype`: float16, bfloat16, float32 or auto. Raises CheckpointError."""
    ranks.check(source.shape)
    if quantization.algo is not None and quantization.algo not in KINDS:
        raise CheckpointError(f"{quantization.algo} cannot be doubled", f"known are {', '.join(KINDS)}")
    dtype = activations(source, dtype)
    output.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks.count):
        tensors: dict[str, Tensor] = {}
        for name, values in split(source.floats, source.shape, ranks, rank):
            tensors |= stored(name, values, dtype, quantization)
        write_tensors(output / f"rank{rank}.safetensors", tensors)
        say(f"rank {rank} of {ranks.count}: {len(tensors)} tensors written")
    write_json(output / "config.json", _config(source, ranks, dtype, quantization))
    say(f"Total time of converting checkpoints: {ranks.count} ranks in {output}")


def activations(source: HfFolder, dtype: str) -> str:
    """The data type that `--dtype` asks for; `auto`: the source's, single precision made half."""
    found = source.dtype if dtype == "auto" else dtype
    return "float16" if dtype == "auto" and found not in ("float16", "bfloat16") else found


def stored(name: str, values: Any, dtype: str, quantization: Quantization) -> dict[str, Tensor]:
    """The tensors that one weight becomes."""
    matrix = next((matrix for matrix in MATRICES if f".{matrix}." in name), None)
    if matrix is None or quantization.algo is None:
        return {name: Tensor.of(values, STORED[dtype])}
    base = name.removesuffix("weight")
    parts = quantize(values, KINDS[quantization.algo], quantization.group)
    found = {base + PART_NAMES[part]: tensor for part, tensor in parts.items()}
    one = Tensor("F32", np.ones(1, np.float32))
    if quantization.algo in ("FP8", "NVFP4"):
        found[f"{base}activation_scaling_factor"] = one
    if quantization.kv_cache_algo and matrix == "attention.qkv":
        found[f"{base.removesuffix('qkv.')}kv_cache_scaling_factor"] = one
    return found


def _config(source: HfFolder, ranks: Ranks, dtype: str, quantization: Quantization) -> dict[str, Any]:
    shape = source.shape
    text = source.config.get("text_config", source.config)
    ends = text.get("eos_token_id", 1)
    return {
        "runtime": "emulated",
        "architecture": shape.architecture,
        "dtype": dtype,
        "logits_dtype": "float32",
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_positions,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_size": shape.head_dim,
        "hidden_act": text.get("hidden_act", "silu"),
        "intermediate_size": shape.intermediate,
        "norm_epsilon": text.get("rms_norm_eps", 1e-5),
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": text.get("rope_theta", 10000.0),
        "rotary_scaling": None,
        "use_parallel_embedding": ranks.parallel_embedding,
        "embedding_sharding_dim": 0,
        "mapping": {
            "world_size": ranks.count,
            "gpus_per_node": 8,
            "cp_size": 1,
            "tp_size": ranks.tensor,
            "pp_size": ranks.pipeline,
            "moe_tp_size": ranks.tensor,
            "moe_ep_size": 1,
        },
        "quantization": quantization.document(),
        "emulated": {
            "bos_token_id": text.get("bos_token_id", 0),
            "eos_token_id": ends[0] if isinstance(ends, list) else ends,
            "pad_token_id": text.get("pad_token_id"),
        },
    }
