"""Random LoRA adapters as PEFT writes them, small and strong enough to change what a model says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from emulator.engine import ModelConfig
from emulator.train.adapters import write_safetensors
from inference.lora import CONFIG_FILE, WEIGHTS_FILE, LoraTensors, load_adapter

PARENTS = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn")


def shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every module by its name at Hugging Face."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        "q_proj": (hidden, config.query_size),
        "k_proj": (hidden, config.kv_size),
        "v_proj": (hidden, config.kv_size),
        "o_proj": (config.query_size, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def matrices(config: ModelConfig, seed: int, rank: int = 2) -> dict[str, Any]:
    """lora_A and lora_B of every module and layer by PEFT's names."""
    random = np.random.default_rng(seed)
    made = {}
    for layer in range(config.num_hidden_layers):
        for module, (inputs, outputs) in shapes(config).items():
            stem = f"base_model.model.model.layers.{layer}.{PARENTS.get(module, 'mlp')}.{module}"
            made[f"{stem}.lora_A.weight"] = random.normal(size=(rank, inputs)) / np.sqrt(inputs)
            made[f"{stem}.lora_B.weight"] = random.normal(size=(outputs, rank))
    return made


def write_adapter(folder: Path, config: ModelConfig, seed: int, rank: int = 2, **settings: Any) -> Path:
    """Writes the folder; `settings` go into `adapter_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, **settings}
    (folder / CONFIG_FILE).write_text(json.dumps(fields))
    write_safetensors(folder / WEIGHTS_FILE, matrices(config, seed, rank))
    return folder


def random_adapter(folder: Path, config: ModelConfig, seed: int, rank: int = 2) -> LoraTensors:
    return load_adapter(write_adapter(folder, config, seed, rank))
