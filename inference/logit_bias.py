"""LogitBias: what is added to the logits of a few tokens, written as the vector over the vocabulary that
TensorRT-LLM takes.

A vocabulary has 128,000 tokens and a bias a handful, so both wire forms are copied from zeros and written
once, however many choices and attempts send them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property, lru_cache

from msgspec import Raw


class LogitBias:
    """Biases by token id; ids lie below `vocab_size`."""

    def __init__(
        self, biases: Mapping[int, float], vocab_size: int, words: tuple[str, ...] | None = None
    ) -> None:
        self.biases = biases
        self.vocab_size = vocab_size
        self.words = words
        """The text of each token, in the order of `biases`; None where a text is not that one token again."""

    @cached_property
    def json(self) -> Raw:
        """A JSON array."""
        zeros = memoryview(_zeros(self.vocab_size))
        pieces: list[bytes | memoryview] = []
        at = 0
        for token, bias in sorted(self.biases.items()):
            pieces += zeros[: 2 * (token - at)], b"%r," % float(bias)
            at = token + 1
        pieces.append(zeros[: 2 * (self.vocab_size - at)])
        return Raw(b"[" + b"".join(pieces)[:-1] + b"]")

    @cached_property
    def packed(self) -> bytes:
        """FP32 as Triton's gRPC takes it."""
        packed = bytearray(4 * self.vocab_size)
        for token, bias in self.biases.items():
            struct.pack_into("<f", packed, 4 * token, bias)
        return bytes(packed)


def json_of(value: object) -> Raw:
    """How a tensor that JSON does not know is written; the hook of an encoder."""
    if isinstance(value, LogitBias):
        return value.json
    raise TypeError(f"a tensor cannot be a {type(value).__name__}")


@lru_cache(maxsize=8)
def _zeros(count: int) -> bytes:
    return b"0," * count
