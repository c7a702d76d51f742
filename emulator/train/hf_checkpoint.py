"""A shipped model as a checkpoint in Hugging Face's layout, which TensorRT-LLM's programs and ours take.

`python -m emulator.train.hf_checkpoint --out DIR [--model house-chat] [--dtype bfloat16] [--shards 2]`. The
same arguments, the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from emulator.engine.weights import Array, ModelConfig, Weights
from emulator.train.specs import MODELS
from engine_builder.doubles.checkpoint_writer import STORED
from engine_builder.doubles.layout import EMBEDDING, FINAL_NORM
from engine_builder.doubles.tensor_files import Tensor, write_tensors

SHIPPED = Path(__file__).resolve().parents[1] / "models"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def write_hf_checkpoint(
    folder: Path, model: str = "house-chat", dtype: str = "float16", shards: int = 1
) -> Path:
    """Writes config, weights, tokenizer and generation defaults; more than one shard get an index."""
    weights = Weights.load(SHIPPED / model)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: Tensor.of(values, STORED[dtype]) for name, values in hf_arrays(weights).items()}
    if shards == 1:
        write_tensors(folder / "model.safetensors", tensors)
    else:
        _write_shards(folder, tensors, shards)
    _write_json(folder / "config.json", _config(weights.config, dtype))
    tokens = {
        name: getattr(weights.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    _write_json(folder / "generation_config.json", {**tokens, "do_sample": False})
    for name in _TOKENIZER_FILES:
        shutil.copyfile(SHIPPED / model / name, folder / name)
    return folder


def hf_arrays(weights: Weights) -> dict[str, Array]:
    """The arrays by Hugging Face's names, matrices [outputs, inputs]; head and embeddings are one."""
    config = weights.config
    found: dict[str, Array] = {EMBEDDING: weights.embed, FINAL_NORM: weights.final_norm}
    for number, layer in enumerate(weights.layers):
        query, key = config.query_size, config.query_size + config.kv_size
        qkv, gate_up, inner = layer.qkv.T, layer.gate_up.T, config.intermediate_size
        parts = {
            "input_layernorm": layer.attention_norm,
            "self_attn.q_proj": qkv[:query],
            "self_attn.k_proj": qkv[query:key],
            "self_attn.v_proj": qkv[key:],
            "self_attn.o_proj": layer.output.T,
            "post_attention_layernorm": layer.mlp_norm,
            "mlp.gate_proj": gate_up[:inner],
            "mlp.up_proj": gate_up[inner:],
            "mlp.down_proj": layer.down.T,
        }
        found |= {f"model.layers.{number}.{name}.weight": array for name, array in parts.items()}
    return found


def _config(config: ModelConfig, dtype: str) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
    }


def _write_shards(folder: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    places: dict[str, str] = {}
    names = list(tensors)
    for number in range(shards):
        own = names[number::shards]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        write_tensors(folder / file, {name: tensors[name] for name in own})
        places |= dict.fromkeys(own, file)
    total = sum(tensor.data.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Writes one checkpoint and says where."""
    parser = argparse.ArgumentParser(prog="python -m emulator.train.hf_checkpoint", description=__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="house-chat")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=sorted(STORED), default="float16")
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args(arguments)
    write_hf_checkpoint(options.out, options.model, options.dtype, options.shards)
    sys.stdout.write(f"{options.out}: {options.model} in Hugging Face's layout, {options.dtype}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
