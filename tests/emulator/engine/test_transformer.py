"""The engine's forward pass: the same function as the trainer's network, however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest

from emulator.engine import Weights
from emulator.engine.kv_pool import KvPool
from emulator.engine.transformer import Segment, Transformer, bucket_of
from emulator.engine.weights import Array
from emulator.train.network import Batch, Network

from .conftest import VOCAB

SIZE = 4
TOKENS = [int(token) for token in np.random.default_rng(5).integers(0, VOCAB, 45)]


def fresh(weights: Weights) -> Transformer:
    return Transformer(weights, KvPool(weights.config, 64, SIZE))


def table(first: int) -> list[int]:
    """Sixteen blocks in descending order, so that position and block number differ."""
    return list(range(first + 15, first - 1, -1))


def logits_in_chunks(weights: Weights, *cuts: int) -> Array:
    """Logits after the last token, computed in chunks that end at `cuts`."""
    transformer, start = fresh(weights), 0
    for cut in (*cuts, len(TOKENS)):
        result = transformer.forward([Segment(TOKENS[start:cut], start, table(0))], [0])
        start = cut
    return result[0]


def test_it_computes_what_the_trained_network_computes(weights: Weights) -> None:
    expected = Network(weights.config).logits(weights.arrays, np.array([TOKENS]))[0, -1]
    assert logits_in_chunks(weights) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("cuts", [(1,), (20,), (4, 8, 44), tuple(range(1, 45))])
def test_cutting_a_prompt_changes_nothing(weights: Weights, cuts: tuple[int, ...]) -> None:
    assert logits_in_chunks(weights, *cuts) == pytest.approx(logits_in_chunks(weights), abs=2e-3)


def test_a_request_gets_the_same_bits_in_any_company(weights: Weights) -> None:
    """Decoding alone and beside 30 others of all lengths gives identical logits."""
    prompt = Segment(TOKENS[:20], 0, table(0))
    alone, crowded = fresh(weights), fresh(weights)
    alone.forward([prompt], [0])
    crowded.forward([prompt, Segment(TOKENS, 0, table(16)), Segment(TOKENS[:7], 0, table(32))], [0])
    step = Segment([5], 20, table(0))
    company = [Segment([n], n, table(48)) for n in range(30)]
    (expected,) = alone.forward([step], [0])
    assert np.array_equal(crowded.forward([*company, step], [30])[0], expected)


def test_gradients_agree_with_differences(weights: Weights) -> None:
    """The hand-written backward pass, against the slope of the loss along random directions."""
    generator = np.random.default_rng(2)
    network = Network(weights.config)
    parameters = {name: array.copy() for name, array in weights.arrays.items()}
    shape = (3, 9)
    batch = Batch(
        generator.integers(0, VOCAB, shape),
        generator.integers(0, VOCAB, shape),
        generator.random(shape).astype(np.float32),
    )
    _, gradients = network.loss(parameters, batch)
    for name, array in parameters.items():
        direction = generator.standard_normal(array.shape).astype(np.float32)
        step = np.float32(3e-3 / np.sqrt(array.size))
        losses = []
        for sign in (1, -1):
            moved = {**parameters, name: array + np.float32(sign) * step * direction}
            losses.append(network.loss(moved, batch)[0])
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), rel=0.03, abs=0.03), name


@pytest.mark.parametrize(
    ("blocks", "padded"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 8), (9, 12), (13, 16)]
)
def test_buckets_waste_at_most_a_third(blocks: int, padded: int) -> None:
    assert bucket_of(blocks) == padded
