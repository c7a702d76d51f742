"""The `openai-http` lane: servers that already speak OpenAI. Bytes are relayed with the least possible work.

Where the client speaks another API (`InferenceRequest.relay` is off) the answer is read instead.

Of a streamed answer only the last bytes are looked at: the gateway always asks for usage, reads it from the
event before `[DONE]`, and takes that event out again where the client did not ask for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from inference.errors import InferenceError, ProtocolError, StreamBrokenError
from inference.http_chunks import LONGEST_EVENT_BYTES, LONGEST_REFUSAL_BYTES, body_of
from inference.openai_answers import ChatReader, Counts, usage_of
from inference.openai_errors import UNREADABLE, raise_error_in, refusal
from inference.push_http import Exchange, HttpPool, Patience, http_request, request_head
from inference.request import InferenceRequest, Usage
from inference.sink import Sink

_encode = msgspec.json.Encoder().encode
_DONE = b"[DONE]"
_LOOK_AT = (b'"usage"', b'"error"', _DONE)
_LONGEST_ANSWER_BYTES = 256 << 20
"""Of an answer in one piece."""


class _Answer(msgspec.Struct, gc=False):
    usage: Counts | None = None
    choices: list[msgspec.Raw] = []


_answer = msgspec.json.Decoder(_Answer).decode


class OpenAiHttp:
    """Calls one model of an OpenAI-HTTP server."""

    def __init__(
        self,
        pool: HttpPool,
        base_path: str,
        target: str,
        api_key_env: str | None,
        patience: Patience | None = None,
    ) -> None:
        self._pool = pool
        self._patience = patience
        self._base_path = base_path.removesuffix("/").removesuffix("/v1")
        self._target = target
        key = None if api_key_env is None else os.environ.get(api_key_env)
        self._headers = f"authorization: Bearer {key}\r\n" if key else ""
        self._heads: dict[str, bytes] = {}

    def start(self, request: InferenceRequest, sink: Sink) -> Exchange:
        """Send the client's own JSON with the upstream's model name."""
        body = dict(request.body or {})
        body["model"] = self._target if request.lora is None else request.lora.name
        wants_usage = True
        streams = bool(body.get("stream"))  # a Triton lane may have to stream what the client wants whole
        if streams:
            options = body.get("stream_options") or {}
            wants_usage = bool(options.get("include_usage"))
            if not wants_usage:
                body["stream_options"] = {**options, "include_usage": True}
        head = self._heads.get(request.path) or self._head(request.path)
        message = http_request(head, request.trace_headers, _encode(body))
        receiver = _receiver(request.relay, streams, sink, wants_usage)
        return self._pool.start(message, receiver, streams, self._patience)

    def _head(self, path: str) -> bytes:
        head = self._heads[path] = request_head(self._base_path + path, self._pool.authority, self._headers)
        return head


def _receiver(relay: bool, streams: bool, sink: Sink, wants_usage: bool) -> _Stream | _Whole:
    if relay:
        return _Stream(sink, wants_usage) if streams else _Whole(sink)
    return _ReadStream(sink) if streams else _ReadWhole(sink)


class _Whole:
    """A JSON answer in one piece."""

    __slots__ = ("_bytes", "_parts", "_sink", "_status")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._status = 200
        self._parts: list[bytes] = []
        self._bytes = 0

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def body(self, data: bytes) -> None:
        self._parts.append(data)
        self._bytes += len(data)
        if self._status != 200 and self._bytes > LONGEST_REFUSAL_BYTES:
            raise refusal(self._status, b"".join(self._parts))
        if self._bytes > _LONGEST_ANSWER_BYTES:
            raise ProtocolError("the upstream's answer does not end")

    def flush(self) -> None: ...

    def complete(self) -> None:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._status != 200:
            self._sink.lost(refusal(self._status, body))
            return
        try:
            if body.find(b'"error"') >= 0:
                raise_error_in(body)
            self._answered(body)
        except InferenceError as error:
            self._sink.lost(error)
            return
        except UNREADABLE as error:
            self._sink.lost(ProtocolError(f"the upstream's answer is not OpenAI's: {error}"))

    def _answered(self, body: bytes) -> None:
        usage = usage_of(_answer(body).usage)
        self._sink.data(body)
        self._sink.end(None, usage)

    def lost(self, error: InferenceError) -> None:
        self._sink.lost(error)


class _Stream:
    """Server-sent events, relayed as they come; holds back only what is not yet a whole event."""

    __slots__ = (
        "_done",
        "_partial",
        "_pass_on",
        "_refused",
        "_sink",
        "_status",
        "_usage",
        "_wants_usage",
        "flush",
    )

    def __init__(self, sink: Sink, wants_usage: bool) -> None:
        self._sink = sink
        self.flush = sink.flush
        self._pass_on: Callable[[bytes], None] | None = getattr(sink, "chunk", None)
        self._wants_usage = wants_usage
        self._status = 0
        self._partial = bytearray()
        self._usage = Usage()
        self._done = False
        self._refused = b""

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def body(self, data: bytes) -> None:
        """Once per chunk. Raises InferenceError when the upstream says under 200 that it failed."""
        if self._partial or not data.endswith(b"}\n\n") or self._status != 200:
            self._unusual(data)
        elif data.find(b"usage") >= 0 or data.find(b"error") >= 0:
            self._look(data)
        else:
            self._sink.data(data)

    def chunk(self, framed: bytes) -> None:
        """As `body` and `flush`, for one HTTP chunk that came alone."""
        if (
            self._pass_on is None
            or self._partial
            or not framed.endswith(b"}\n\n\r\n")
            or self._status != 200
            or framed.find(b"usage") >= 0  # `in` costs twice as much: it tries a number first
            or framed.find(b"error") >= 0
        ):
            self.body(body_of(framed))
            self.flush()
        else:
            self._pass_on(framed)

    def _unusual(self, data: bytes) -> None:
        """A refusal, a part of an event, lines ended by CR LF, comments, or the end mark."""
        if self._status != 200:
            self._refuse(data)
            return
        data = self._whole_events(data)
        if any(mark in data for mark in _LOOK_AT):
            self._look(data)
        elif data:
            self._sink.data(data)

    def _refuse(self, data: bytes) -> None:
        self._refused += data
        if len(self._refused) > LONGEST_REFUSAL_BYTES:
            raise refusal(self._status, self._refused)

    def _whole_events(self, data: bytes) -> bytes:
        """What is complete so far, with lines ended by LF; the rest is kept for the next call."""
        if kept := self._partial:
            seen = max(0, len(kept) - 2)
            kept += data
            if kept.find(b"\n\n", seen) < 0 and kept.find(b"\n\r\n", seen) < 0:
                if len(kept) > LONGEST_EVENT_BYTES:
                    raise ProtocolError("an event of the upstream does not end")
                return b""
            data = bytes(kept)
        data = data.replace(b"\r\n", b"\n")  # within JSON both are always escaped
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self._partial = bytearray(data[end:])
        return data[:end]

    def _look(self, data: bytes) -> None:
        """Relay `data` without the end mark and what the client did not ask for; read usage and errors."""
        kept = b""
        try:
            for event in data.replace(b"\r\n", b"\n").split(b"\n\n"):
                if event and self._keeps(event):
                    kept += event.strip(b"\n") + b"\n\n"
        finally:  # what came before an error stays pushed
            if kept:
                self._sink.data(kept)

    def _keeps(self, event: bytes) -> bool:
        payload = _payload(event)
        if payload == _DONE:
            self._done = True
            return False
        try:
            if b'"error"' in payload:
                raise_error_in(payload)
            if b'"usage"' in payload and b'"usage":null' not in payload:
                return self._keeps_usage(_answer(payload))
        except msgspec.ValidationError:
            return True  # JSON of another shape: not what is looked for
        except UNREADABLE as error:
            raise ProtocolError(f"an event of the upstream is not JSON: {error}") from error
        return bool(event.strip())

    def _keeps_usage(self, answer: _Answer) -> bool:
        if answer.usage is None:
            return True  # a delta whose text is the word
        self._usage = usage_of(answer.usage)
        return self._wants_usage or bool(answer.choices)

    def complete(self) -> None:
        if self._status != 200:
            self._sink.lost(refusal(self._status, self._refused))
            return
        try:
            if self._partial:  # the end mark and an error need no empty line after them
                self._keeps(bytes(self._partial))
        except ProtocolError as error:
            self._sink.lost(StreamBrokenError(f"the upstream's stream ended within an event: {error}"))
            return
        except InferenceError as error:
            self._sink.lost(error)
            return
        if self._done:
            self._ended()
        else:
            self._sink.lost(StreamBrokenError("the upstream's stream ended without [DONE]"))

    def _ended(self) -> None:
        self._sink.end(None, self._usage)

    def lost(self, error: InferenceError) -> None:
        self._sink.lost(error)


class _ReadWhole(_Whole):
    """A chat answer in one piece, for a client of another API."""

    def _answered(self, body: bytes) -> None:
        reader = ChatReader(self._sink)
        reader.read(body)
        reader.end()


class _ReadStream(_Stream):
    """A chat stream for a client of another API."""

    __slots__ = ("_reader",)

    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, wants_usage=False)
        self._pass_on = None
        self._reader = ChatReader(sink)

    def body(self, data: bytes) -> None:
        if self._status != 200:
            self._refuse(data)
        elif events := self._whole_events(data):
            self._look(events)

    def _keeps(self, event: bytes) -> bool:
        """Nothing is relayed."""
        payload = _payload(event)
        if payload == _DONE:
            self._done = True
        elif payload:
            try:
                if b'"error"' in payload:
                    raise_error_in(payload)
                self._reader.read(payload)
            except UNREADABLE as error:
                raise ProtocolError(f"an event of the upstream is not OpenAI's: {error}") from error
        return False

    def _ended(self) -> None:
        self._reader.end()


def _payload(event: bytes) -> bytes:
    """The data of a server-sent event, or the JSON sent in place of events."""
    if event.startswith(b"{"):
        return event
    if event.startswith(b"data:") and event.find(b"\n") < 0:
        return event[5:].strip()
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines).strip()
