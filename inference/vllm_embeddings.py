"""VllmEmbeddings: embeddings of Triton's vLLM backend, which takes one input a call and joins them itself.

What one input does wrong fails the whole request batch: the router splits it then.
"""

from __future__ import annotations

from array import array
from typing import Any

import msgspec

from inference.classify import classify_error
from inference.errors import InferenceError, ProtocolError, UnsupportedFeatureError
from inference.push_http import Exchange, HttpPool, Patience, http_request
from inference.request import InferenceRequest, Usage
from inference.schema import Schema
from inference.sink import Call, Sink
from inference.triton_http import error_text

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
_encode = msgspec.json.Encoder().encode


class _Generated(msgspec.Struct):
    text_output: str
    num_input_tokens: int | None = None


_generated = msgspec.json.Decoder(_Generated).decode
_floats = msgspec.json.Decoder(list[float]).decode


class VllmEmbeddings:
    """Embeds by the vLLM backend's `embedding_request`, one input a call and all calls at once."""

    def __init__(self, pool: HttpPool, schema: Schema, patience: Patience | None = None) -> None:
        self._pool = pool
        self._patience = patience
        self._takes = schema.inputs.keys()
        path = f"/v2/models/{schema.target}/generate"
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {pool.authority}\r\ncontent-type: application/json\r\n"
        ).encode("latin-1")

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        """Send every input. Raises UnsupportedFeatureError where the backend is older than embeddings."""
        if "embedding_request" not in self._takes:
            raise UnsupportedFeatureError("this version of the vLLM backend embeds nothing", param="model")
        call = _VllmCall(sink, len(request.inputs or ()))
        for index, one in enumerate(request.inputs or ()):
            # By id: what the gateway has counted is what the server gets.
            asked = _encode({"input": one.ids}).decode()
            body: dict[str, Any] = {
                "id": f"{request.id}-{index}",
                "text_input": "",
                "embedding_request": asked,
                "return_num_input_tokens": True,
            }
            message = http_request(self._head, request.trace_headers, _encode(body))
            receiver = _VllmVector(call, index)
            call.exchanges.append(self._pool.start(message, receiver, False, self._patience))
        return call


class _VllmCall:
    """The calls of one request batch: the first that fails ends them all."""

    def __init__(self, sink: Sink, count: int) -> None:
        self.exchanges: list[Exchange] = []
        self._sink = sink
        self._vectors: list[bytes | None] = [None] * count
        self._left = count
        self._tokens = 0
        self._answered = self._over = False

    def cancel(self) -> None:
        self._over = True
        for exchange in self.exchanges:
            exchange.cancel()

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def answered(self) -> None:
        if not self._answered and not self._over:
            self._answered = True
            self._sink.head()

    def arrived(self, index: int, vector: bytes, tokens: int) -> None:
        self._vectors[index] = vector
        self._tokens += tokens
        self._left -= 1
        if self._left == 0 and not self._over:
            self._over = True
            self._sink.vectors([vector for vector in self._vectors if vector is not None])
            self._sink.end(None, Usage(self._tokens, 0))

    def lost(self, error: InferenceError) -> None:
        if not self._over:
            self.cancel()
            self._sink.lost(error)


class _VllmVector:
    """Receives one vector, as JSON in JSON."""

    def __init__(self, call: _VllmCall, index: int) -> None:
        self._call = call
        self._index = index
        self._status = 200
        self._parts: list[bytes] = []

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._call.answered()

    def body(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None: ...

    def complete(self) -> None:
        body = b"".join(self._parts)
        if self._status != 200:
            raise classify_error(self._status, error_text(body))
        try:
            answer = _generated(body)
            vector = array("f", _floats(answer.text_output)).tobytes()
        except _UNREADABLE as error:
            raise ProtocolError(f"the answer holds no vector: {error}") from error
        self._call.arrived(self._index, vector, answer.num_input_tokens or 0)

    def lost(self, error: InferenceError) -> None:
        self._call.lost(error)
