"""A checkpoint in Hugging Face's layout: its shape, and its tensors one at a time.

Reads bfloat16, half and single precision, and what ModelOpt exports (`hf_quant_config.json`; scales beside
the weights: `weight_scale`, `weight_scale_2`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_builder.doubles.float_formats import Floats
from engine_builder.doubles.quantizing import dequantize
from engine_builder.doubles.tensor_files import Tensor, read_tensors
from engine_builder.errors import CheckpointError
from engine_builder.shape import Shape

CONFIG_FILE, INDEX_FILE, QUANT_FILE = "config.json", "model.safetensors.index.json", "hf_quant_config.json"
PART_NAMES: Mapping[str, str] = {
    "weight": "weight",
    "scale": "weight_scale",
    "global_scale": "weight_scale_2",
}


@dataclass(slots=True)
class HfFolder:
    """One folder that has been looked into; weights are read when asked for."""

    path: Path
    config: Mapping[str, Any]
    shape: Shape
    _files: Mapping[str, Path]
    _group: int | None = None
    _open: dict[Path, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> HfFolder:
        """Reads config and index. Raises CheckpointError."""
        config = read_json(path / CONFIG_FILE)
        if config.get("rope_scaling"):
            raise CheckpointError(
                f"{path}: rope_scaling is not computed by the CPU engines",
                "take a checkpoint without it, or build where TensorRT-LLM is",
            )
        return cls(path, config, Shape.of(config, str(path / CONFIG_FILE)), _index(path), _group(path))

    @property
    def dtype(self) -> str:
        """Data type of the weights: float16, bfloat16 or float32."""
        text = self.config.get("text_config", self.config)
        return str(text.get("dtype") or text.get("torch_dtype") or "float16")

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._files

    def floats(self, name: str) -> Floats:
        """A tensor in single precision, dequantized. Raises CheckpointError."""
        base = name.removesuffix("weight")
        parts = {
            part: self._tensor(base + hf_name)
            for part, hf_name in PART_NAMES.items()
            if part == "weight" or base + hf_name in self._files
        }
        weight = parts["weight"]
        packed = weight.dtype == "U8"
        return dequantize(parts, self._inputs(name) if packed else weight.shape[-1], self._group)

    def _inputs(self, name: str) -> int:
        """Columns of a matrix that is packed, where an odd last one has a partner."""
        if "self_attn.o_proj" in name:
            return self.shape.heads * self.shape.head_dim
        return self.shape.intermediate if "mlp.down_proj" in name else self.shape.hidden

    def _tensor(self, name: str) -> Tensor:
        file = self._files.get(name)
        if file is None:
            raise CheckpointError(f"{self.path} has no tensor {name}", "fetch the checkpoint again")
        if file not in self._open:
            self._open[file] = read_tensors(file)
        tensor = self._open[file].get(name)
        if tensor is None:
            raise CheckpointError(f"{file} lacks {name}, which the index promises", "fetch it again")
        return tensor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "fetch the checkpoint again") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is not a JSON object", "fetch the checkpoint again")
    return document


def _index(path: Path) -> dict[str, Path]:
    if (path / INDEX_FILE).exists():
        places = read_json(path / INDEX_FILE).get("weight_map", {})
        return {name: path / str(file) for name, file in places.items()}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{path} holds no *.safetensors", "convert the weights to safetensors first")
    return {name: file for file in files for name in read_tensors(file)}


def _group(path: Path) -> int | None:
    if not (path / QUANT_FILE).exists():
        return None
    group = read_json(path / QUANT_FILE).get("quantization", {}).get("group_size")
    return None if group is None else int(group)
