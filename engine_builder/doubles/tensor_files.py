"""Tensors of a safetensors file with data types that NumPy does not have; read without copying.

The format's own library does not give bfloat16 and FP8 as NumPy arrays. Layout: 8 bytes with the header's
length (little endian), a header in JSON with data type, shape and offsets of each tensor, then their bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_builder.doubles.float_formats import Floats, from_bfloat16, from_e4m3, to_bfloat16, to_e4m3
from engine_builder.errors import CheckpointError

_NUMPY: Mapping[str, str] = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "|u1",
    "I8": "|i1",
    "U8": "|u1",
    "I32": "<i4",
    "I64": "<i8",
}
"""What holds the bits, by the format's name of the data type."""


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
        return cls(dtype, values.astype(_NUMPY[dtype]))

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
        data = np.memmap(path, np.uint8, "r", start)
        first = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8:first].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(entry, data[first:]) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}", "write it again") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], before: bytes = b"") -> None:
    """Writes a file, whole or not at all; `before` comes in front. The same tensors, the same bytes."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        begin, end = end, end + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(before) + 8 + len(text)) % 8)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(before + len(text).to_bytes(8, "little") + text)
        for _, tensor in sorted(tensors.items()):
            file.write(np.ascontiguousarray(tensor.data).data)
    part.replace(path)


def write_json(path: Path, document: Any) -> None:
    """Writes a file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document, indent=2) + os.linesep, encoding="utf-8")
    part.replace(path)


def _tensor(entry: Mapping[str, Any], data: NDArray[np.uint8]) -> Tensor:
    dtype = entry["dtype"]
    if dtype not in _NUMPY:
        raise ValueError(f"data type {dtype} is none of {', '.join(_NUMPY)}")
    begin, end = entry["data_offsets"]
    return Tensor(dtype, data[begin:end].view(_NUMPY[dtype]).reshape(entry["shape"]))
