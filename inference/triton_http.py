"""Triton's HTTP `generate_stream` as a pushed stream: bytes -> events -> a lane's reader -> a sink."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from inference.classify import classify_error
from inference.errors import InferenceError, ProtocolError
from inference.http_chunks import LONGEST_EVENT_BYTES, LONGEST_REFUSAL_BYTES
from inference.lane import TritonLane
from inference.lanes.outputs import outputs_of
from inference.logit_bias import json_of
from inference.push_http import Exchange, HttpPool, Patience, http_request, request_head
from inference.request import InferenceRequest
from inference.sink import Call, Sink

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.Encoder(enc_hook=json_of).encode


class TritonHttp:
    """Calls one Triton model over HTTP."""

    def __init__(
        self, pool: HttpPool, target: str, lane: TritonLane, patience: Patience | None = None
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._lane = lane
        self._head = request_head(f"/v2/models/{target}/generate_stream", pool.authority)

    def start(self, request: InferenceRequest, sink: Sink) -> Call:
        """Send `request`; never raises for what the server does, that goes to `sink.lost`.

        Raises UnsupportedFeatureError before anything is sent.
        """
        self._lane.check(request)
        tensors = self._lane.tensors(request)
        tensors["id"] = request.id
        message = http_request(self._head, request.trace_headers, _encode(tensors))
        receiver = _EventStream(self._lane, request, sink)
        exchange = self._pool.start(message, receiver, request.stream, self._patience)
        if request.stream or not self._lane.takes_stop:
            return exchange
        return _WholeCall(exchange, partial(self._stop, request))

    def _stop(self, request: InferenceRequest) -> None:
        """Tell the engine to give up a request, by its id."""
        tensors = {**self._lane.tensors(request), "id": request.id, "stop": True}
        message = http_request(self._head, "", _encode(tensors))
        self._pool.start(message, _Unheard(), streams=False)


class _WholeCall:
    """A call whose answer comes in one piece.

    Triton does not read from a connection while it answers, and notices a closed one only by writing to it.
    """

    __slots__ = ("_exchange", "_stop", "pause", "resume")

    def __init__(self, exchange: Exchange, stop: Callable[[], None]) -> None:
        self._exchange = exchange
        self._stop = stop
        self.pause = exchange.pause
        self.resume = exchange.resume

    def cancel(self) -> None:
        if not self._exchange.over:
            self._exchange.cancel()
            self._stop()


class _Unheard:
    """Takes an answer that tells nothing."""

    def head(self, status: int) -> None: ...

    def body(self, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def complete(self) -> None: ...

    def lost(self, error: InferenceError) -> None: ...


class _EventStream:
    """Splits a `generate_stream` body into events (contract sheet 7.1)."""

    __slots__ = ("_partial", "_payload", "_reader", "_refusal", "_sink", "_status", "flush")

    def __init__(self, lane: TritonLane, request: InferenceRequest, sink: Sink) -> None:
        self._sink = sink
        self.flush = sink.flush
        self._reader = lane.reader(request, sink)
        self._payload: Callable[[bytes], None] = getattr(self._reader, "payload", self._read)
        self._partial = bytearray()
        self._status = 200
        self._refusal = b""

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def body(self, data: bytes) -> None:
        if self._status != 200:
            self._refusal += data
            if len(self._refusal) > LONGEST_REFUSAL_BYTES:
                raise classify_error(self._status, error_text(self._refusal))
            return
        if kept := self._partial:
            seen = max(0, len(kept) - 1)
            kept += data
            if kept.find(b"\n\n", seen) < 0:
                if len(kept) > LONGEST_EVENT_BYTES:
                    raise ProtocolError("an event of the server does not end")
                return
            data = bytes(kept)
        *events, rest = data.split(b"\n\n")
        self._partial = bytearray(rest)
        for event in events:
            self._event(event)

    def chunk(self, framed: bytes) -> None:
        """As `body` and `flush`, for one HTTP chunk that came alone: nearly always one event."""
        begin = framed.index(b"\n") + 1
        if self._partial or self._status != 200 or not framed.startswith(b"data: ", begin):
            self.body(framed[begin:-2])
        else:
            try:
                self._payload(framed[begin + 6 : -4])
            except msgspec.DecodeError:  # a part of an event, or several; nothing was pushed
                self.body(framed[begin:-2])
            except _UNREADABLE as error:
                raise _not_json(error) from error
        self.flush()

    def _event(self, event: bytes) -> None:
        if not event.startswith(b"data: "):
            raise ProtocolError(f"not a server-sent event: {event[:80]!r}")
        try:
            self._payload(event[6:])
        except _UNREADABLE as error:
            raise _not_json(error) from error

    def _read(self, payload: bytes) -> None:
        self._reader.event(outputs_of(payload))

    def complete(self) -> None:
        if self._status != 200:
            self._sink.lost(classify_error(self._status, error_text(self._refusal)))
        elif self._partial.strip():
            self._sink.lost(ProtocolError("the server ended within an event"))
        else:
            try:
                self._reader.finish()
            except InferenceError as error:
                self._sink.lost(error)

    def lost(self, error: InferenceError) -> None:
        self._sink.lost(error)


def _not_json(error: Exception) -> ProtocolError:
    return ProtocolError(f"an event is not JSON: {error}")


def error_text(body: bytes) -> str:
    """The text of Triton's `{"error": text}`, which it also sends as a server-sent event."""
    text = body.removeprefix(b"data: ").strip()
    try:
        return str(outputs_of(text).get("error", text.decode("utf-8", "replace")))
    except _UNREADABLE:
        return text.decode("utf-8", "replace") or "no text"
