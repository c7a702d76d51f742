"""EncoderHttp: encoders on Triton, a request batch in one `infer` with binary tensors, padded to its longest.

What one input does wrong fails the whole call: the router splits it then.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Iterator, Sequence

import msgspec

from inference.binary_tensors import CODES, pack
from inference.classify import classify_error
from inference.errors import InferenceError, ProtocolError, UnsupportedFeatureError
from inference.push_http import Exchange, HttpPool, Patience, http_request
from inference.request import EmbeddingInput, InferenceRequest, Usage
from inference.schema import Schema
from inference.sink import Call, Sink
from inference.triton_http import error_text
from inference.vectors import FLOAT_BYTES, mean_pooled

_HEADER = b"inference-header-content-length"
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.Encoder().encode


class _Parameters(msgspec.Struct):
    binary_data_size: int = -1


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Inferred(msgspec.Struct):
    outputs: list[_Output]


_inferred = msgspec.json.Decoder(_Inferred).decode


class EncoderHttp:
    """Calls one encoder over HTTP."""

    def __init__(self, pool: HttpPool, schema: Schema, patience: Patience | None = None) -> None:
        self._pool = pool
        self._patience = patience
        self.schema = schema
        path = f"/v2/models/{schema.target}/infer"
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {pool.authority}\r\ncontent-type: application/octet-stream\r\n"
        ).encode("latin-1")

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        """Send all inputs of `request`; never raises for what the server does, that goes to `sink.lost`.

        Raises UnsupportedFeatureError before anything is sent.
        """
        if request.inputs is None:
            raise UnsupportedFeatureError("this model's server embeds and generates nothing", param="model")
        header, contents = infer_body(self.schema, request.id, request.inputs)
        lines = f"{request.trace_headers}inference-header-content-length: {len(header)}\r\n"
        message = http_request(self._head, lines, header + contents)
        call = _EncoderCall(self.schema, request.inputs, sink)
        call.exchange = self._pool.start(message, call, False, self._patience)
        return call


class _EncoderCall:
    """One `infer` under way: receives its answer, and is what cancels it."""

    exchange: Exchange

    def __init__(self, schema: Schema, inputs: Sequence[EmbeddingInput], sink: Sink) -> None:
        self._schema = schema
        self._inputs = inputs
        self._sink = sink
        self._status = 200
        self._header_bytes: int | None = None
        self._parts: list[bytes] = []
        self._pooling: asyncio.Future[list[bytes]] | None = None
        self._over = False

    def cancel(self) -> None:
        self._over = True
        self.exchange.cancel()
        if self._pooling is not None:
            self._pooling.cancel()

    def pause(self) -> None:
        self.exchange.pause()

    def resume(self) -> None:
        self.exchange.resume()

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _HEADER and value.isdigit():
            self._header_bytes = int(value)

    def body(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None: ...

    def complete(self) -> None:
        body = b"".join(self._parts)
        if self._status != 200:
            raise classify_error(self._status, error_text(body))
        raw, shape = _vectors_in(body, self._header_bytes, self._schema, len(self._inputs))
        width = shape[-1] * FLOAT_BYTES
        if len(shape) == 2:
            self._end([raw[at : at + width] for at in range(0, len(raw), width)])
            return
        lengths = [len(one.ids) for one in self._inputs]
        pooling = asyncio.get_running_loop().run_in_executor(None, mean_pooled, raw, shape, lengths)
        self._pooling = pooling
        pooling.add_done_callback(self._pooled)

    def lost(self, error: InferenceError) -> None:
        self._over = True
        self._sink.lost(error)

    def _pooled(self, pooling: asyncio.Future[list[bytes]]) -> None:
        if self._over:
            return
        error = pooling.exception()
        if error is None:
            self._end(pooling.result())
        else:
            self.lost(ProtocolError(f"the vectors cannot be pooled: {type(error).__name__}: {error}"))

    def _end(self, vectors: list[bytes]) -> None:
        self._over = True
        self._sink.vectors(vectors)
        self._sink.end(None, Usage(sum(len(one.ids) for one in self._inputs), 0))


def infer_body(schema: Schema, request_id: str, inputs: Sequence[EmbeddingInput]) -> tuple[bytes, bytes]:
    """JSON header and binary contents of one `infer` for all `inputs`."""
    count, tensors = len(inputs), []
    if schema.lane == "text_encoder":
        name = next(name for name, tensor in schema.inputs.items() if tensor.datatype == "BYTES")
        texts = [one.text or "" for one in inputs]
        tensors.append((name, [count, 1][: len(schema.inputs[name].shape)], pack("BYTES", texts)))
    else:
        longest = max(len(one.ids) for one in inputs)
        shape = [count, longest] if schema.has_batch else [longest]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            if name in schema.inputs:
                code = CODES[schema.inputs[name].datatype]
                tensors.append((name, shape, b"".join(_rows(name, code, inputs, longest))))
    header = {
        "id": request_id,
        "inputs": [
            {
                "name": name,
                "shape": shape,
                "datatype": schema.inputs[name].datatype,
                "parameters": {"binary_data_size": len(contents)},
            }
            for name, shape, contents in tensors
        ],
        "outputs": [{"name": schema.vectors, "parameters": {"binary_data": True}}],
    }
    return _encode(header), b"".join(contents for _, _, contents in tensors)


def _rows(name: str, code: str, inputs: Sequence[EmbeddingInput], longest: int) -> Iterator[bytes]:
    """One tensor row by row, padded with 0; whole arrays at a time, as this runs on the event loop."""
    size = array(code).itemsize
    ones = (array(code, [1]) * longest).tobytes() if name == "attention_mask" else b""
    for one in inputs:
        length = len(one.ids)
        if name == "input_ids":
            yield array(code, one.ids).tobytes()
        elif name == "attention_mask":
            yield ones[: size * length]
        else:
            length = 0
        yield bytes(size * (longest - length))


def _vectors_in(
    body: bytes, header_bytes: int | None, schema: Schema, inputs: int
) -> tuple[bytes, list[int]]:
    """Raw floats and their shape, with the dimension of the batch. Raises ProtocolError."""
    try:
        answer = _inferred(body if header_bytes is None else body[:header_bytes])
    except _UNREADABLE as error:
        raise ProtocolError(f"the answer's header is not Triton's: {error}") from error
    found = next((one for one in answer.outputs if one.name == schema.vectors), None)
    raw = body[header_bytes:] if header_bytes is not None else b""
    if found is None or found.datatype != "FP32" or found.parameters.binary_data_size != len(raw):
        raise ProtocolError(f"the answer holds no binary FP32 output {schema.vectors}")
    shape = found.shape if schema.has_batch else [1, *found.shape]
    if len(shape) not in (2, 3) or shape[0] != inputs or math.prod(shape) * FLOAT_BYTES != len(raw):
        raise ProtocolError(f"output {schema.vectors} of {inputs} inputs has shape {found.shape}")
    return raw, shape
