"""Directories that hold a model by ranks: TensorRT-LLM checkpoints, and the engines made of them.

A checkpoint has `config.json` and `rank{N}.safetensors`; an engine has `config.json` (version,
pretrained_config, build_config) and `rank{N}.engine`. An emulated engine file begins with a line that says
what it is, so that nobody takes it for a TensorRT plan, and goes on as safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_builder.doubles.float_formats import Floats
from engine_builder.doubles.hf_folder import read_json
from engine_builder.doubles.layout import MATRICES, Ranks, inputs_of, join
from engine_builder.doubles.quantizing import dequantize
from engine_builder.doubles.tensor_files import Tensor, read_tensors
from engine_builder.errors import CheckpointError
from engine_builder.shape import Shape

HEADER = b"emulated engine, no TensorRT plan; see engine_builder/doubles\n"
PART_NAMES: Mapping[str, str] = {
    "weight": "weight",
    "scale": "weights_scaling_factor",
    "global_scale": "weights_scaling_factor_2",
}
"""Of what quantization keeps of a weight, in TensorRT-LLM checkpoints."""


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The sizes of a TensorRT-LLM `pretrained_config`."""
    return Shape(
        architecture=config["architecture"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_size"],
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        max_positions=config["max_position_embeddings"],
    )


def ranks_of(config: Mapping[str, Any]) -> Ranks:
    """The split of a TensorRT-LLM `pretrained_config`."""
    mapping = config["mapping"]
    return Ranks(mapping["tp_size"], mapping["pp_size"], bool(config.get("use_parallel_embedding")))


@dataclass(frozen=True, slots=True)
class EngineDir:
    """An emulated engine that has been looked into."""

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> EngineDir:
        """Reads `config.json` and counts rank files. Raises CheckpointError."""
        config = read_json(path / "config.json")
        if config.get("runtime") != "emulated":
            raise CheckpointError(
                f"{path} was not made by the doubles", "a real engine runs in Triton's tensorrtllm backend"
            )
        try:
            world = ranks_of(config["pretrained_config"]).count
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}/config.json lacks {error}", "build the engine again") from error
        missing = [n for n in range(world) if not (path / f"rank{n}.engine").exists()]
        if missing:
            names = ", ".join(f"rank{n}.engine" for n in missing)
            raise CheckpointError(f"{path} lacks {names} of {world} ranks", "build the engine again")
        return cls(path, config)

    @property
    def pretrained(self) -> Mapping[str, Any]:
        """What the checkpoint was."""
        found: Mapping[str, Any] = self.config["pretrained_config"]
        return found

    @property
    def build(self) -> Mapping[str, Any]:
        """The limits it was built for."""
        found: Mapping[str, Any] = self.config["build_config"]
        return found

    def tensors(self) -> dict[str, Floats]:
        """The whole model by Hugging Face's names, dequantized. Raises CheckpointError."""
        shape, ranks = shape_of(self.pretrained), ranks_of(self.pretrained)
        group = self.pretrained["quantization"].get("group_size")
        parts = [
            rank_floats(_read_rank(self.path / f"rank{rank}.engine"), shape, ranks, group)
            for rank in range(ranks.count)
        ]
        try:
            return join(parts, shape, ranks)
        except KeyError as error:
            raise CheckpointError(f"{self.path} lacks {error}", "build the engine again") from error


def rank_floats(
    tensors: Mapping[str, Tensor], shape: Shape, ranks: Ranks, group: int | None
) -> dict[str, Floats]:
    """One rank's weights in single precision; scales go into them."""
    found = {}
    for name in tensors:
        if not name.endswith(".weight"):
            continue
        base = name.removesuffix("weight")
        parts = {
            part: tensors[base + suffix] for part, suffix in PART_NAMES.items() if base + suffix in tensors
        }
        found[name] = dequantize(parts, _inputs(name, shape, ranks), group)
    return found


def _inputs(name: str, shape: Shape, ranks: Ranks) -> int:
    return next(
        (inputs_of(matrix, shape, ranks.tensor) for matrix in MATRICES if f".{matrix}." in name),
        shape.hidden,
    )


def _read_rank(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise CheckpointError(f"{path} is no emulated engine", "real engines need a GPU")
    return read_tensors(path, len(HEADER))
