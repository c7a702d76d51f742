"""Embeddings side by side: the direction counts, and that there is one for each input."""

from __future__ import annotations

from array import array

import pytest

from gateway.shadow.embedding import MOST_INPUTS, cosine, differs, request_for
from inference.request import EmbeddingInput


def vector(*numbers: float) -> bytes:
    return array("f", numbers).tobytes()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (vector(1, 0), vector(3, 0), 1.0),
        (vector(1, 0), vector(0, 1), 0.0),
        (vector(1, 0), vector(-1, 0), -1.0),
        (vector(0, 0), vector(1, 0), 0.0),
        (vector(1, 0), vector(1, 0, 0), 0.0),
    ],
)
def test_the_cosine_tells_directions(one: bytes, other: bytes, expected: float) -> None:
    assert cosine(one, other) == pytest.approx(expected)


def test_numerics_do_not_differ_and_other_vectors_do() -> None:
    same = [vector(0.6, 0.8), vector(1, 0)]
    assert not differs(same, [vector(0.601, 0.799), vector(1, 0.001)])
    assert differs(same, [vector(0.6, 0.8), vector(0.5, 0.5)])
    assert differs(same, same[:1]), "one is missing"


def test_of_many_inputs_the_first_are_copied() -> None:
    inputs = [EmbeddingInput([number + 1]) for number in range(MOST_INPUTS + 5)]
    request = request_for("r", "m", inputs)
    assert (request.id, request.inputs) == ("r-copy", inputs[:MOST_INPUTS])
    client = [vector(1, 0)] * len(inputs)
    assert not differs(client, client[:MOST_INPUTS])
