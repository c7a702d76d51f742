"""The parameters of one transformer: its shape (`ModelConfig`) and its arrays (`Weights`).

A model folder of ours holds `config.json` in the key names of Hugging Face and `weights.npz` with float16
arrays; checkpoints and emulated engines are read as well (`model_folders`). In memory everything is float32,
which is what the engine computes in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emulator.engine.model_folders import CONFIG_FILE, WEIGHTS_FILE, read_arrays, read_fields

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise ValueError("head_dim must be even: RoPE rotates pairs")

    @property
    def query_size(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """Reads `config.json`; keys that this engine has no use for are left alone. Raises ValueError."""
        fields = read_fields(folder)
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def save(self, folder: Path) -> None:
        header = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        rest = {"hidden_act": "silu", "tie_word_embeddings": True, "torch_dtype": "float16"}
        text = json.dumps({**header, **asdict(self), **rest}, indent=2)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array, in storage order; matrices are [inputs, outputs].

    A model whose head is not its table of embeddings has `head` [vocab, hidden] too.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {"embed": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        shapes[f"layers.{layer}.attention_norm"] = (hidden,)
        shapes[f"layers.{layer}.qkv"] = (hidden, config.query_size + 2 * config.kv_size)
        shapes[f"layers.{layer}.output"] = (config.query_size, hidden)
        shapes[f"layers.{layer}.mlp_norm"] = (hidden,)
        shapes[f"layers.{layer}.gate_up"] = (hidden, 2 * inner)
        shapes[f"layers.{layer}.down"] = (inner, hidden)
    shapes["final_norm"] = (hidden,)
    return shapes


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The arrays of one layer; `qkv` and `gate_up` hold their parts side by side."""

    attention_norm: Array
    qkv: Array
    output: Array
    mlp_norm: Array
    gate_up: Array
    down: Array


class Weights:
    """The arrays of one model in float32, checked against the configuration's shapes.

    `head` [vocab, hidden] makes logits; where none is given it is the table of embeddings.
    """

    def __init__(self, config: ModelConfig, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        shapes = parameter_shapes(config)
        if "head" in arrays:
            shapes["head"] = shapes["embed"]
        for name, shape in shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "nothing"
                raise ValueError(f"weight {name} must have shape {shape}, found {found}")
        self.config = config
        self.arrays: dict[str, Array] = {
            name: np.ascontiguousarray(arrays[name], dtype=np.float32) for name in shapes
        }
        self.embed = self.arrays["embed"]
        self.head = self.arrays.get("head", self.embed)
        self.final_norm = self.arrays["final_norm"]
        self.layers = [self._layer(layer) for layer in range(config.num_hidden_layers)]

    def _layer(self, layer: int) -> LayerWeights:
        names = LayerWeights.__dataclass_fields__
        return LayerWeights(**{name: self.arrays[f"layers.{layer}.{name}"] for name in names})

    @classmethod
    def load(cls, folder: str | Path) -> Weights:
        """Reads a model folder, a checkpoint in Hugging Face's layout, or an emulated engine.

        Raises ValueError for what is no such folder, and BuilderError for one that is not whole.
        """
        path = Path(folder)
        config = ModelConfig.load(path)
        return cls(config, read_arrays(path, config.num_hidden_layers))

    @classmethod
    def random(cls, config: ModelConfig, seed: int) -> Weights:
        """Untrained weights: normal with the usual 0.02 scale, residual outputs scaled down by depth."""
        generator = np.random.Generator(np.random.PCG64(seed))
        residual = 1.0 / np.sqrt(2.0 * config.num_hidden_layers)
        arrays: dict[str, Array] = {}
        for name, shape in parameter_shapes(config).items():
            if name.endswith("norm"):
                arrays[name] = np.ones(shape, dtype=np.float32)
                continue
            scale = 0.02 if name == "embed" else 1.0 / np.sqrt(shape[0])
            if name.endswith(("output", "down")):
                scale *= residual
            arrays[name] = generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        return cls(config, arrays)

    def save(self, folder: str | Path) -> None:
        """Writes `config.json` and float16 `weights.npz`; same arrays, same bytes."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self.config.save(path)
        halves = {name: array.astype(np.float16) for name, array in self.arrays.items()}
        np.savez(path / WEIGHTS_FILE, **halves)  # type: ignore[arg-type]
