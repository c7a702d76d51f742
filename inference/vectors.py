"""Vectors of embeddings, as the bytes of their 32-bit floats. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

FLOAT_BYTES = 4


def mean_pooled(raw: bytes, shape: Sequence[int], lengths: Sequence[int]) -> list[bytes]:
    """One vector of length 1 per input from a vector per token, without padding; runs off the event loop."""
    _, tokens, width = shape
    vectors = []
    for row, length in enumerate(lengths):
        start = row * tokens * width * FLOAT_BYTES
        states = array("f", raw[start : start + length * width * FLOAT_BYTES])
        vectors.append(normalised(array("f", (sum(states[at::width]) for at in range(width)))).tobytes())
    return vectors


def normalised(vector: array[float]) -> array[float]:
    """`vector` with length 1; one of zeros stays."""
    length = math.sqrt(sum(value * value for value in vector))
    return array("f", (value / length for value in vector)) if length else vector
