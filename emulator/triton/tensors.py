"""Numbers and words in and out of the tensors of a Triton request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from emulator.engine import EngineError

FINAL = 1  # TRITONSERVER_RESPONSE_COMPLETE_FINAL

Array = NDArray[Any]
Tensors = Mapping[str, Array]


class BadTensorError(EngineError):
    """A tensor is missing or has a shape that the model cannot use; the text names it."""


def tensors_of(request: Any) -> dict[str, Array]:
    """All inputs of a request by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def parameters_of(request: Any) -> dict[str, Any]:
    """Parameters of a request; `generate` puts JSON keys there that name no tensor."""
    found: dict[str, Any] = json.loads(request.parameters() or "{}")
    return found


def scalar(tensors: Tensors, name: str, default: Any, item: int = 0) -> Any:
    """The value for one item of the batch; a tensor with one value serves all items."""
    array = tensors.get(name)
    if array is None or array.size == 0:
        return default
    flat = array.reshape(-1)
    if item >= flat.size > 1:
        raise BadTensorError(f"tensor {name} has {flat.size} values for a larger batch")
    value = flat[item if flat.size > 1 else 0]
    return value.item() if hasattr(value, "item") else value


def text(tensors: Tensors, name: str) -> str | None:
    """The first text of a STRING tensor."""
    found = texts(tensors, name)
    return found[0] if found else None


def texts(tensors: Tensors, name: str) -> list[str]:
    """All texts of a STRING tensor; bytes that are no UTF-8 are refused by name."""
    array = tensors.get(name)
    if array is None:
        return []
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise BadTensorError(f"tensor {name} is not valid UTF-8") from error


def pack_words(words: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Word lists in TensorRT-LLM's layout [1, 2, n]: all ids, padded 0; end offsets, padded -1."""
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    packed = np.zeros((1, 2, len(ids)), np.int32)
    packed[0, 0] = ids
    packed[0, 1] = -1
    packed[0, 1, : len(ends)] = ends
    return packed


def unpack_words(tensors: Tensors, name: str, item: int = 0) -> tuple[tuple[int, ...], ...]:
    """The words of one item of the batch; the inverse of `pack_words`."""
    array = tensors.get(name)
    if array is None or array.size == 0:
        return ()
    if array.ndim != 3 or array.shape[1] != 2:
        raise BadTensorError(f"tensor {name} must have shape [batch, 2, length], got {list(array.shape)}")
    ids, ends = array[item].tolist()
    words, start = [], 0
    for end in ends:
        if end < 0:
            break
        if not start < end <= len(ids):
            raise BadTensorError(f"tensor {name} has end offset {end} after {start} of {len(ids)} ids")
        words.append(tuple(ids[start:end]))
        start = end
    return tuple(words)


def string_tensor(name: str, values: Sequence[str | bytes]) -> Any:
    """A one-dimensional STRING tensor."""
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return pb_utils.Tensor(name, np.array(encoded, dtype=np.object_))


def error_response(message: str, code: int | None = None) -> Any:
    """A response that carries only an error; Triton's code is INTERNAL unless given."""
    error = pb_utils.TritonError(message) if code is None else pb_utils.TritonError(message, code)
    return pb_utils.InferenceResponse(error=error)
