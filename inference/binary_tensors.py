"""Triton's binary tensors: Python values to raw contents by declared type, and back.

The same bytes on gRPC's wire and, after a JSON header, in the binary tensor extension of HTTP `infer`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

from inference.errors import ProtocolError

CODES = {
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
    "BOOL": "?",
}
"""Codes of `array` and `memoryview` by Triton's names."""
_LENGTH = struct.Struct("<I")


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    """The raw contents of a flat tensor."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
    if datatype == "BOOL":
        return bytes(bool(value) for value in values)
    return array(CODES[datatype], values).tobytes()


def unpack(name: str, datatype: str, raw: bytes) -> list[Any]:
    """The values of output `name`. Raises ProtocolError when they cannot be read."""
    if datatype == "BYTES":
        return _texts(name, raw)
    try:
        return memoryview(raw).cast(CODES[datatype]).tolist()  # type: ignore[call-overload,no-any-return]
    except (KeyError, TypeError) as error:
        raise ProtocolError(f"output {name} of type {datatype} cannot be read: {error}") from error


def _texts(name: str, raw: bytes) -> list[str]:
    texts = []
    position = 0
    try:
        while position < len(raw):
            (length,) = _LENGTH.unpack_from(raw, position)
            position += _LENGTH.size + length
            texts.append(raw[position - length : position].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"output {name} cannot be read as text: {error}") from error
    if position != len(raw):
        raise ProtocolError(f"output {name} is shorter than it says")
    return texts
