"""LoRA adapters from disk: a folder as PEFT writes it, to the two tensors that TensorRT-LLM takes.

Layout, as `examples/hf_lora_convert.py` of TensorRT-LLM writes it: one row per module and layer. A row
of `config` is (module id, layer, rank); the same row of `weights` holds lora_A [rank, inputs], then
lora_B [outputs, rank] times the adapter's scale, each flattened row by row, and zeros up to the width of
the widest row. Wants NumPy, and time in proportion to the file: convert once, off the event loop.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import AdapterError
from inference.safetensors_data import UNREADABLE, Stored, from_bfloat16, stored_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

# TensorRT-LLM's module ids (`LoraManager.LORA_MODULE_IDS`) by the names of Hugging Face's Llama family.
MODULE_IDS: Mapping[str, int] = {
    "qkv_proj": 0,
    "q_proj": 1,
    "k_proj": 2,
    "v_proj": 3,
    "o_proj": 4,
    "gate_proj": 5,  # not a slip: `mlp_h_to_4h` is the gate, `mlp_gate` the other half
    "down_proj": 6,
    "up_proj": 7,
}
_KEY = re.compile(r"(?:.*\.)?layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_(A|B)(?:\.default)?\.weight")
_DTYPES = ("F16", "F32", "BF16")
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class LoraTensors:
    """`lora_weights` [rows, width] and `lora_config` [rows, 3] of one adapter, without batch dimension."""

    weights: NDArray[np.float16]
    config: NDArray[np.int32]


def load_adapter(folder: Path) -> LoraTensors:
    """Reads `adapter_config.json` and `adapter_model.safetensors`. Raises AdapterError."""
    scale_of = _scale(_read_config(folder / CONFIG_FILE))
    pairs = _pairs(read_safetensors(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    rows, config = [], []
    for (layer, module), (inward, outward) in sorted(pairs.items()):
        rank = inward.shape[0]
        scaled = outward * np.float32(scale_of(rank))
        rows.append(np.concatenate((inward.reshape(-1), scaled.reshape(-1))).astype(np.float16))
        config.append((MODULE_IDS[module], layer, rank))
    weights = np.zeros((len(rows), max(map(len, rows))), np.float16)
    for number, row in enumerate(rows):
        weights[number, : len(row)] = row
    return LoraTensors(weights, np.array(config, np.int32))


def read_safetensors(path: Path) -> dict[str, Matrix]:
    """Tensors by name: half and single precision as they are, bfloat16 as single. Raises AdapterError."""
    try:
        stored = stored_tensors(np.fromfile(path, np.uint8))
        return {name: _matrix(one) for name, one in stored.items()}
    except UNREADABLE as error:
        raise AdapterError(f"{path} cannot be read as safetensors: {error}") from error


def _matrix(stored: Stored) -> Matrix:
    if stored.dtype not in _DTYPES:
        raise ValueError(f"data type {stored.dtype} is none of {', '.join(_DTYPES)}")
    return from_bfloat16(stored.bits) if stored.dtype == "BF16" else stored.bits


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise AdapterError(f"{path} describes no LoRA adapter")
    used = [key for key in _UNSUPPORTED if config.get(key)]
    if used:
        raise AdapterError(f"{path} uses {', '.join(used)}, which TensorRT-LLM's tensors cannot carry")
    if not all(isinstance(config.get(key), (int, float)) for key in ("r", "lora_alpha")):
        raise AdapterError(f"{path} must give r and lora_alpha as numbers")
    return config


def _scale(config: Mapping[str, Any]) -> Any:
    """What lora_B is multiplied by, from the rank."""
    alpha = float(config["lora_alpha"])
    if config.get("use_rslora"):
        return lambda rank: alpha / math.sqrt(rank)
    return lambda rank: alpha / rank


def _pairs(tensors: Mapping[str, Matrix], path: Path) -> dict[tuple[int, str], tuple[Matrix, Matrix]]:
    """lora_A and lora_B by layer and module; everything in the file must be part of a pair."""
    halves: dict[tuple[int, str], dict[str, Matrix]] = {}
    for name, tensor in tensors.items():
        found = _KEY.fullmatch(name)
        if found is None or found[2] not in MODULE_IDS or tensor.ndim != 2:
            raise AdapterError(
                f"{path}: {name} belongs to no module that is supported: {', '.join(MODULE_IDS)}"
            )
        halves.setdefault((int(found[1]), found[2]), {})[found[3]] = tensor
    if not halves:
        raise AdapterError(f"{path} holds no tensors")
    for (layer, module), pair in halves.items():
        if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise AdapterError(f"{path}: lora_A and lora_B of layer {layer}, {module} do not fit together")
    return {place: (pair["A"], pair["B"]) for place, pair in halves.items()}
