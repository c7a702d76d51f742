"""LogitBias: both wire forms hold the same vector."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.grpc_tensors import infer_request
from inference.logit_bias import LogitBias, json_of
from inference.schema import Tensor

_encode = msgspec.json.Encoder(enc_hook=json_of).encode


@given(
    size=st.integers(1, 60),
    biases=st.dictionaries(st.integers(0, 59), st.floats(-100, 100, width=32), max_size=8),
)
def test_a_bias_is_zero_but_for_its_tokens(size: int, biases: dict[int, float]) -> None:
    biases = {token: bias for token, bias in biases.items() if token < size}
    vector = [biases.get(token, 0.0) for token in range(size)]
    bias = LogitBias(biases, size)
    assert msgspec.json.decode(_encode({"embedding_bias": bias})) == {"embedding_bias": vector}
    assert list(struct.unpack(f"<{size}f", bias.packed)) == vector


def test_grpc_takes_it_as_it_is() -> None:
    declared = {"embedding_bias": Tensor("FP32", (-1, -1))}
    request = infer_request("m", "r", {"embedding_bias": LogitBias({1: 2.5}, 4)}, declared)
    assert list(request.inputs[0].shape) == [1, 4]
    assert request.raw_input_contents[0] == struct.pack("<4f", 0, 2.5, 0, 0)


def test_it_is_written_once() -> None:
    bias = LogitBias({1: 2.5}, 4)
    assert bias.json is bias.json
    assert bias.packed is bias.packed


def test_nothing_else_is_a_tensor() -> None:
    with pytest.raises(TypeError, match="object"):
        _encode({"x": object()})
