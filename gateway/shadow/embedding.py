"""Embeddings of a rollout's two sides: how a copy is asked for, and when two vectors say the same."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import sqrt
from operator import mul

from gateway.streaming.whole_choice import WholeChoice
from inference.request import EmbeddingInput, InferenceRequest

SAME_DIRECTION = 0.99
"""Cosine from which on two vectors mean the same: numerics of other batches and precisions move less."""
MOST_INPUTS = 8
"""Of one request, that are copied."""


class VectorsCopy(WholeChoice):
    """Takes the vectors of a copy."""

    def __init__(self) -> None:
        super().__init__(0, None)
        self.got: Sequence[bytes] = ()

    def vectors(self, vectors: Sequence[bytes]) -> None:
        self.got = list(vectors)


def request_for(request_id: str, model: str, inputs: Sequence[EmbeddingInput]) -> InferenceRequest:
    """A copy that asks for the first of a request's inputs."""
    return InferenceRequest(
        id=f"{request_id}-copy", model=model, stream=False, max_tokens=0, inputs=inputs[:MOST_INPUTS]
    )


def differs(client: Sequence[bytes], copy: Sequence[bytes]) -> bool:
    """Whether any vector points elsewhere; of those that were copied."""
    if len(copy) != min(len(client), MOST_INPUTS):
        return True
    return any(cosine(*pair) < SAME_DIRECTION for pair in zip(client, copy, strict=False))


def cosine(one: bytes, other: bytes) -> float:
    """Of two vectors of 32-bit floats; of different lengths, or without a direction: 0."""
    a, b = array("f", one), array("f", other)
    lengths = sqrt(sum(map(mul, a, a))) * sqrt(sum(map(mul, b, b)))
    if len(a) != len(b) or lengths == 0:
        return 0.0
    return float(sum(map(mul, a, b))) / lengths
