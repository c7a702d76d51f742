"""Where a model's shape and arrays come from: the shipped folders, Hugging Face's layout, emulated engines.

A folder with `weights.npz` is one of ours; one whose `config.json` has `pretrained_config` is an engine that
the doubles of TensorRT-LLM built, in as many ranks as it says; one with `*.safetensors` is a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_builder.doubles.engine_dir import EngineDir
from engine_builder.doubles.hf_folder import HfFolder
from engine_builder.doubles.layout import EMBEDDING, FINAL_NORM, HEAD

CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.npz"
Arrays = dict[str, NDArray[np.floating]]


def read_fields(folder: Path) -> dict[str, Any]:
    """A model's shape by Hugging Face's names, whatever kind of folder it is. Raises ValueError."""
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if "pretrained_config" in config:
        return _of_engine(config["pretrained_config"])
    text: dict[str, Any] = dict(config.get("text_config", config))
    missing = {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"} - text.keys()
    if missing:
        raise ValueError(f"{folder / CONFIG_FILE} lacks {', '.join(sorted(missing))}")
    heads = text["num_attention_heads"]
    text.setdefault("num_key_value_heads", heads)
    text["head_dim"] = text.get("head_dim") or text["hidden_size"] // heads
    ends = text.get("eos_token_id")
    text["eos_token_id"] = ends[0] if isinstance(ends, list) else ends
    return {name: value for name, value in text.items() if value is not None}


def read_arrays(folder: Path, layers: int) -> Arrays:
    """A model's arrays by the engine's names, matrices [inputs, outputs]. Raises BuilderError, ValueError."""
    if (folder / WEIGHTS_FILE).exists():
        with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    if engine_limits(folder) is not None:
        tensors = EngineDir.open(folder).tensors()
        return _arrays(tensors.__getitem__, layers, HEAD in tensors)
    checkpoint = HfFolder.open(folder)
    has_head = not checkpoint.shape.tied_embeddings and checkpoint.has(HEAD)
    return _arrays(checkpoint.floats, layers, has_head)


def engine_limits(folder: Path) -> dict[str, Any] | None:
    """What an engine was built for, by the names of `EngineLimits`; None where the folder holds no engine."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    build = config.get("build_config")
    if not isinstance(build, Mapping):
        return None
    plugins, lora = build["plugin_config"], build.get("lora_config")
    longest = build["max_seq_len"]
    return {
        "max_batch_size": build["max_batch_size"],
        "max_num_tokens": build["max_num_tokens"],
        "max_seq_len": longest,
        # --max_input_len has no effect with padding removal and context FMHA, as in the real engine.
        "max_input_len": longest - 1,
        "tokens_per_block": plugins["tokens_per_block"],
        "enable_kv_cache_reuse": bool(plugins["use_paged_context_fmha"]),
        "max_lora_rank": lora["max_lora_rank"] if lora else 0,
    }


def _of_engine(pretrained: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: value for name, value in pretrained["emulated"].items() if value is not None},
        **{name: pretrained[name] for name in ("vocab_size", "hidden_size", "intermediate_size")},
        **{name: pretrained[name] for name in ("num_hidden_layers", "max_position_embeddings")},
        "num_attention_heads": pretrained["num_attention_heads"],
        "num_key_value_heads": pretrained["num_key_value_heads"],
        "head_dim": pretrained["head_size"],
        "rope_theta": pretrained["rotary_base"],
        "rms_norm_eps": pretrained["norm_epsilon"],
    }


def _arrays(read: Callable[[str], NDArray[np.float32]], layers: int, has_head: bool) -> Arrays:
    def side_by_side(layer: int, *names: str) -> NDArray[np.float32]:
        return np.concatenate([read(f"model.layers.{layer}.{name}.weight").T for name in names], axis=1)

    arrays: Arrays = {"embed": read(EMBEDDING), "final_norm": read(FINAL_NORM)}
    if has_head:
        head = read(HEAD)
        if not np.array_equal(head, arrays["embed"]):  # an engine has a copy even where they are tied
            arrays["head"] = head
    for layer in range(layers):
        ours, theirs = f"layers.{layer}", f"model.layers.{layer}"
        arrays[f"{ours}.attention_norm"] = read(f"{theirs}.input_layernorm.weight")
        arrays[f"{ours}.mlp_norm"] = read(f"{theirs}.post_attention_layernorm.weight")
        attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        arrays[f"{ours}.qkv"] = side_by_side(layer, *attention)
        arrays[f"{ours}.output"] = side_by_side(layer, "self_attn.o_proj")
        arrays[f"{ours}.gate_up"] = side_by_side(layer, "mlp.gate_proj", "mlp.up_proj")
        arrays[f"{ours}.down"] = side_by_side(layer, "mlp.down_proj")
    return arrays
