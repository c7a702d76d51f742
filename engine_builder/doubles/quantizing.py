"""Matrices in fewer bits, and back: what each kind of quantization keeps of a weight. Pure.

Rounds to the nearest by the weights alone. Real calibration measures activations too, which a double without
the network's forward pass does not; so SmoothQuant and AWQ here are their formats without their balancing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine_builder.doubles.float_formats import (
    E2M1_LARGEST,
    E4M3_LARGEST,
    Floats,
    from_e2m1,
    pack_nibbles,
    to_e2m1,
    unpack_nibbles,
)
from engine_builder.doubles.tensor_files import Tensor

WeightKind = Literal["fp8", "int8", "int4", "nvfp4"]
KINDS: Mapping[str, WeightKind] = {
    "FP8": "fp8",
    "W8A16": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN": "int8",
    "W8A8_SQ_PER_TENSOR_PLUGIN": "int8",
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN": "int8",
    "W4A16": "int4",
    "W4A16_AWQ": "int4",
    "W4A8_AWQ": "int4",
    "NVFP4": "nvfp4",
}
"""How weights are kept, by `quant_algo`; algorithms that are not here cannot be doubled."""
NVFP4_BLOCK = 16
Parts = dict[str, Tensor]
"""`weight`, `scale` and, of NVFP4, `global_scale`."""


def quantize(matrix: Floats, kind: WeightKind, group: int | None = None) -> Parts:
    """Keeps a matrix [outputs, inputs]; `group`: inputs that share a scale in int4, None for all."""
    if kind == "fp8":
        scale = _safe(np.abs(matrix).max() / E4M3_LARGEST)
        return {"weight": Tensor.of(matrix / scale, "F8_E4M3"), "scale": Tensor("F32", scale.reshape(1))}
    if kind == "int8":
        largest: Floats = np.abs(matrix).max(axis=1)
        scale = _safe(largest / np.float32(127))
        whole = np.rint(matrix / scale[:, None]).astype(np.int8)
        return {"weight": Tensor("I8", whole), "scale": Tensor("F32", scale)}
    if kind == "int4":
        scale = _safe(_largest(matrix, group or matrix.shape[1]) / np.float32(7))
        rounded = np.rint(matrix / _spread(scale, group or matrix.shape[1], matrix.shape[1]))
        nibbles = (np.clip(rounded, -8, 7).astype(np.int8) & 15).astype(np.uint8)
        return {"weight": Tensor("U8", pack_nibbles(nibbles)), "scale": Tensor("F32", scale)}
    whole_scale = _safe(np.abs(matrix).max() / (E2M1_LARGEST * E4M3_LARGEST))
    blocks = Tensor.of(_largest(matrix, NVFP4_BLOCK) / E2M1_LARGEST / whole_scale, "F8_E4M3")
    spread = _spread(_safe(blocks.floats() * whole_scale), NVFP4_BLOCK, matrix.shape[1])
    return {
        "weight": Tensor("U8", pack_nibbles(to_e2m1(matrix / spread))),
        "scale": blocks,
        "global_scale": Tensor("F32", whole_scale.reshape(1)),
    }


def dequantize(parts: Mapping[str, Tensor], inputs: int, group: int | None = None) -> Floats:
    """The matrix [outputs, inputs] that such parts stand for; unquantized ones have `weight` alone."""
    weight = parts["weight"]
    if "scale" not in parts:
        return weight.floats()
    scale = parts["scale"].floats()
    if weight.dtype == "F8_E4M3":
        return weight.floats() * scale.reshape(-1)[:1]
    if weight.dtype == "I8":
        return weight.floats() * scale[:, None]
    nibbles = unpack_nibbles(weight.data, inputs)
    if "global_scale" in parts:
        spread = _spread(scale * parts["global_scale"].floats()[0], NVFP4_BLOCK, inputs)
        return from_e2m1(nibbles) * spread
    signed = (nibbles.astype(np.int8) ^ np.int8(8)) - np.int8(8)
    return signed.astype(np.float32) * _spread(scale, group or inputs, inputs)


def _largest(matrix: Floats, group: int) -> Floats:
    """Of each row's groups of inputs, the largest magnitude; the last group may be shorter."""
    starts = np.arange(0, matrix.shape[1], group)
    largest: Floats = np.maximum.reduceat(np.abs(matrix), starts, axis=1)
    return largest


def _spread(scale: Floats, group: int, inputs: int) -> Floats:
    spread: Floats = np.repeat(scale, group, axis=1)[:, :inputs]
    return spread


def _safe(scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Scales of nothing but zeros are 1."""
    array = np.asarray(scale, np.float32)
    return np.where(array > 0, array, np.float32(1))
