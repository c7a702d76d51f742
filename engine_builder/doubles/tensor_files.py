"""Tensors of a safetensors file with data types that NumPy does not have; read without copying."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_builder.doubles.float_formats import Floats, from_e4m3, to_bfloat16, to_e4m3
from engine_builder.errors import CheckpointError
from inference.safetensors_data import NUMPY_TYPES, UNREADABLE, from_bfloat16, stored_tensors
from telemetry.whole_file import whole_file, write_whole


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor: the format's name of its data type, and its bits."""

    dtype: str
    data: NDArray[Any]

    @classmethod
    def of(cls, values: Floats, dtype: str) -> Tensor:
        """Values rounded to F32, F16, BF16 or F8_E4M3."""
        if dtype == "BF16":
            return cls(dtype, to_bfloat16(values))
        if dtype == "F8_E4M3":
            return cls(dtype, to_e4m3(values))
        return cls(dtype, values.astype(NUMPY_TYPES[dtype]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.data.shape

    def floats(self) -> Floats:
        """Its values in single precision."""
        if self.dtype == "BF16":
            return from_bfloat16(self.data)
        if self.dtype == "F8_E4M3":
            return from_e4m3(self.data)
        return self.data.astype(np.float32)


def read_tensors(path: Path, start: int = 0) -> dict[str, Tensor]:
    """The tensors of a file, or of what begins at byte `start` of it. Raises CheckpointError."""
    try:
        stored = stored_tensors(np.memmap(path, np.uint8, "r", start))
    except UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}", "write it again") from error
    return {name: Tensor(*one) for name, one in stored.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], before: bytes = b"") -> None:
    """Writes a file, whole or not at all; `before` comes in front. The same tensors, the same bytes."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(before) + 8 + len(text)) % 8)
    with whole_file(path) as file:
        file.write(before + len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            file.write(np.ascontiguousarray(tensor.data).data)


def write_json(path: Path, document: Any) -> None:
    """Writes a file, whole or not at all."""
    write_whole(path, json.dumps(document, indent=2) + os.linesep)
