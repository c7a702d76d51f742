"""Small floating-point formats as bits and back: bfloat16, FP8 E4M3 and FP4 E2M1. Pure.

Rounds to the nearest; bfloat16 breaks ties to even, the table formats towards the smaller. Values beyond the
largest become the largest, as quantization does. Sources: OCP 8-bit floating point specification 1.0 (E4M3:
bias 7, largest 448, no infinities) and OCP Microscaling formats 1.0 (E2M1: 0 0.5 1 1.5 2 3 4 6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
E4M3_LARGEST = np.float32(448.0)
E2M1_LARGEST = np.float32(6.0)

_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)


def _e4m3_values() -> Floats:
    """The 127 values of positive sign, by bits; bits 127 are NaN."""
    bits = np.arange(127)
    exponent, mantissa = bits >> 3, bits & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal).astype(np.float32)


_E4M3 = _e4m3_values()
_E4M3_BY_BITS = np.concatenate((_E4M3, [np.nan], -_E4M3, [np.nan])).astype(np.float32)
_E2M1_BY_BITS = np.concatenate((_E2M1, -_E2M1))


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def to_e4m3(values: Floats) -> NDArray[np.uint8]:
    """Bits of the nearest E4M3 value."""
    return _nearest(values, _E4M3) | (np.signbit(values).astype(np.uint8) << np.uint8(7))


def from_e4m3(bits: NDArray[np.uint8]) -> Floats:
    """Exact."""
    return _E4M3_BY_BITS[bits]


def to_e2m1(values: Floats) -> NDArray[np.uint8]:
    """Four bits, in the lower half of a byte each, of the nearest E2M1 value."""
    return _nearest(values, _E2M1) | (np.signbit(values).astype(np.uint8) << np.uint8(3))


def from_e2m1(bits: NDArray[np.uint8]) -> Floats:
    """Exact."""
    return _E2M1_BY_BITS[bits]


def pack_nibbles(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two columns in a byte, the first one below; an odd last column gets an empty partner."""
    if bits.shape[-1] % 2:
        bits = np.concatenate((bits, np.zeros_like(bits[..., :1])), axis=-1)
    return bits[..., ::2] | (bits[..., 1::2] << np.uint8(4))


def unpack_nibbles(packed: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """The first `columns` columns again."""
    pairs = np.stack((packed & np.uint8(15), packed >> np.uint8(4)), axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)[..., :columns]


def _nearest(values: Floats, table: Floats) -> NDArray[np.uint8]:
    middles = (table[1:] + table[:-1]) / 2
    return np.searchsorted(middles, np.abs(values)).astype(np.uint8)
