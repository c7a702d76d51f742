"""Tensors on gRPC's wire: requests from Python values by declared type, and values from responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any

from tritonclient.grpc import service_pb2

from inference.binary_tensors import pack, unpack
from inference.logit_bias import LogitBias
from inference.request import RawTensor
from inference.schema import Tensor

_BYTES_FIELD = 2
_RAW_CONTENTS = bytes([service_pb2.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES_FIELD])


def infer_request(
    model: str, request_id: str, tensors: Mapping[str, Any], declared: Mapping[str, Tensor]
) -> Any:
    """A `ModelInferRequest` that asks for an empty final response, so that a clean end can be told."""
    request, contents = _parts(model, request_id, tensors, declared)
    request.raw_input_contents.extend(contents)
    return request


def infer_bytes(
    model: str, request_id: str, tensors: Mapping[str, Any], declared: Mapping[str, Tensor]
) -> bytes:
    """`infer_request` as it goes on the wire, for tensors of megabytes, which are copied once.

    protobuf takes five times as long over them, and nothing else runs meanwhile (docs/decisions).
    """
    request, contents = _parts(model, request_id, tensors, declared)
    fields = ((_RAW_CONTENTS, _varint(len(data)), data) for data in contents)
    return b"".join((request.SerializeToString(), *chain.from_iterable(fields)))


def _parts(
    model: str, request_id: str, tensors: Mapping[str, Any], declared: Mapping[str, Tensor]
) -> tuple[Any, list[bytes]]:
    """The request without the contents of its tensors, and those."""
    contents: list[bytes] = []
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, value in tensors.items():
        tensor = declared[name]
        if value.__class__ is RawTensor:
            shape = (1,) * (len(tensor.shape) - len(value.shape)) + value.shape
            request.inputs.add(name=name, datatype=tensor.datatype, shape=shape)
            contents.append(value.data)
            continue
        if value.__class__ is LogitBias:
            count, raw = value.vocab_size, value.packed
        else:
            values = value if isinstance(value, list) else [value]
            count, raw = len(values), pack(tensor.datatype, values)
        tensor_input = request.inputs.add(name=name, datatype=tensor.datatype)
        tensor_input.shape.extend(wire_shape(tensor.shape, count))
        contents.append(raw)
    return request, contents


def _varint(number: int) -> bytes:
    """Protobuf's encoding of a length."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def wire_shape(declared: Sequence[int], count: int) -> list[int]:
    """The shape of `count` elements, by `generate`'s rule: fixed dimensions divide the count, the innermost
    dynamic one takes the rest, further dynamic ones are 1.
    """
    rest = count // prod(d for d in declared if d > 0)
    shape: list[int] = []
    for dimension in reversed(declared):
        if dimension < 0:
            dimension, rest = rest, 1
        shape.append(dimension)
    return shape[::-1]


def outputs_of(response: Any) -> dict[str, Any]:
    """Outputs by name, as `generate_stream` gives them: one element is a scalar, several are a flat list."""
    outputs: dict[str, Any] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = unpack(tensor.name, tensor.datatype, raw)
        outputs[tensor.name] = values[0] if len(values) == 1 else values
    return outputs


def is_final(response: Any) -> bool:
    """Whether Triton says that nothing follows."""
    return bool(response.parameters["triton_final_response"].bool_param)
