"""The safetensors format: tensors by name, as bits, out of the bytes of a file. Pure.

Layout: 8 bytes with the length of the header (little endian), a header in JSON with data type, shape and
offsets of each tensor, then their bytes. The format's own library does not give bfloat16 and FP8 as NumPy
arrays. Source: the format's description in the README of huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NUMPY_TYPES: Mapping[str, str] = {
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
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a file that is none raises."""


class Stored(NamedTuple):
    """One tensor of a file: the format's name of its data type, and its bits."""

    dtype: str
    bits: NDArray[Any]


def stored_tensors(data: NDArray[np.uint8]) -> dict[str, Stored]:
    """Views of `data`, in the file's order; raises one of UNREADABLE where it does not hold to the format."""
    first = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:first].tobytes())
    header.pop("__metadata__", None)
    return {name: _stored(entry, data[first:]) for name, entry in header.items()}


def _stored(entry: Mapping[str, Any], data: NDArray[np.uint8]) -> Stored:
    dtype = entry["dtype"]
    if dtype not in NUMPY_TYPES:
        raise ValueError(f"data type {dtype} is none of {', '.join(NUMPY_TYPES)}")
    begin, end = entry["data_offsets"]
    return Stored(dtype, data[begin:end].view(NUMPY_TYPES[dtype]).reshape(entry["shape"]))


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """In single precision, exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
