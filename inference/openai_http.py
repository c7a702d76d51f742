"""The `openai-http` lane: servers that already speak OpenAI. Bytes are relayed with the least possible work.

Of a streamed answer only the last bytes are looked at: the gateway always asks for usage, reads it from the
event before `[DONE]`, and takes that event out again where the client did not ask for it.
"""

from __future__ import annotations

import os

import msgspec

from inference.errors import (
    InferenceError,
    ProtocolError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.push_http import Exchange, HttpPool, http_request
from inference.request import InferenceRequest, Usage
from inference.sink import Sink

_encode = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]"
_END = b"[DONE]\n\n"


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Answer(msgspec.Struct):
    usage: _Counts | None = None
    choices: list[msgspec.Raw] = []


class _ErrorBody(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _ErrorAnswer(msgspec.Struct):
    error: _ErrorBody | str | None = None
    message: str = ""


_answer = msgspec.json.Decoder(_Answer).decode
_error_answer = msgspec.json.Decoder(_ErrorAnswer).decode


class OpenAiHttp:
    """Calls one model of an OpenAI-HTTP server."""

    def __init__(self, pool: HttpPool, base_path: str, target: str, api_key_env: str | None) -> None:
        self._pool = pool
        self._base_path = base_path.removesuffix("/").removesuffix("/v1")
        self._target = target
        headers = "content-type: application/json\r\n"
        if api_key_env is not None and (key := os.environ.get(api_key_env)):
            headers += f"authorization: Bearer {key}\r\n"
        self._headers = headers

    def start(self, request: InferenceRequest, sink: Sink) -> Exchange:
        """Send the client's own JSON with the upstream's model name."""
        body = dict(request.body or {})
        body["model"] = self._target
        wants_usage = True
        if request.stream:
            options = body.get("stream_options") or {}
            wants_usage = bool(options.get("include_usage"))
            if not wants_usage:
                body["stream_options"] = {**options, "include_usage": True}
        headers = self._headers
        if request.traceparent is not None:
            headers += f"traceparent: {request.traceparent}\r\n"
        path = self._base_path + request.path
        message = http_request("POST", path, self._pool.authority, headers, _encode(body))
        receiver = _Stream(sink, wants_usage) if request.stream else _Whole(sink)
        return self._pool.start(message, receiver)


class _Whole:
    """A JSON answer in one piece."""

    __slots__ = ("_parts", "_sink", "_status")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._status = 200
        self._parts: list[bytes] = []

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def body(self, data: bytes) -> None:
        self._parts.append(data)

    def flush(self) -> None: ...

    def complete(self) -> None:
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._status != 200:
            self._sink.lost(_refusal(self._status, body))
            return
        try:
            usage = _usage(_answer(body).usage)
        except msgspec.MsgspecError as error:
            self._sink.lost(ProtocolError(f"the upstream's answer is not OpenAI's: {error}"))
            return
        self._sink.data(body)
        self._sink.end(None, usage)

    def lost(self, error: InferenceError) -> None:
        self._sink.lost(error)


class _Stream:
    """Server-sent events, relayed as they come; holds back only what may be the end."""

    __slots__ = (
        "_crlf",
        "_done",
        "_partial",
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
        self._wants_usage = wants_usage
        self._status = 0
        self._crlf: bool | None = None
        """Some servers end lines by CR LF; the first event tells."""
        self._partial = b""
        self._usage = Usage()
        self._done = False
        self._refused = b""

    def head(self, status: int) -> None:
        self._status = status
        if status == 200:
            self._sink.head()

    def body(self, data: bytes) -> None:
        if self._partial or not data.endswith(b"\n\n") or self._crlf is not False or self._status != 200:
            data = self._whole_events(data)
        if b'"usage"' in data or data.endswith(_END):
            data = self._look(data)
        if data:
            self._sink.data(data)

    def _whole_events(self, data: bytes) -> bytes:
        """What is complete so far, with lines ended by LF; the rest is kept for the next call."""
        if self._status != 200:
            self._refused += data
            return b""
        data = self._partial + data
        if self._crlf is None and b"\n" in data:
            self._crlf = b"\r\n" in data
        if self._crlf:  # within JSON both are always escaped
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            end = 0
        self._partial = data[end:]
        return data[:end]

    def _look(self, data: bytes) -> bytes:
        """Reads usage out of events, takes out what the client did not ask for, and the end mark."""
        kept = []
        for event in data.split(b"\n\n"):
            if not event:
                continue
            if event == _DONE:
                self._done = True
                continue
            if b'"usage"' in event and not self._keeps(event):
                continue
            kept.append(event + b"\n\n")
        return b"".join(kept)

    def _keeps(self, event: bytes) -> bool:
        if b'"usage":null' in event:
            return True
        try:
            answer = _answer(event.removeprefix(b"data:"))
        except msgspec.MsgspecError:
            return True  # a delta whose text contains the word
        if answer.usage is None:
            return True
        self._usage = _usage(answer.usage)
        return self._wants_usage or bool(answer.choices)

    def complete(self) -> None:
        if self._status != 200:
            self._sink.lost(_refusal(self._status, self._refused))
        elif not self._done:
            self._sink.lost(StreamBrokenError("the upstream's stream ended without [DONE]"))
        else:
            self._sink.end(None, self._usage)

    def lost(self, error: InferenceError) -> None:
        self._sink.lost(error)


def _usage(counts: _Counts | None) -> Usage:
    if counts is None:
        return Usage()
    details = counts.prompt_tokens_details
    return Usage(counts.prompt_tokens, counts.completion_tokens, details.cached_tokens if details else None)


def _refusal(status: int, body: bytes) -> InferenceError:
    """The error an upstream's status stands for; its text is passed on only where it is about the request."""
    try:
        answer = _error_answer(body)
        inner = answer.error if isinstance(answer.error, _ErrorBody) else None
        text = inner.message if inner else str(answer.error or answer.message)
        param = inner.param if inner else None
    except msgspec.MsgspecError:
        text, param = body[:200].decode("utf-8", "replace"), None
    match status:
        case 400 | 413 | 422:
            return RequestRefusedError(text or "the upstream refused the request", param)
        case 404:
            return ServerFailedError(f"the upstream does not know the model or path: {text}")
        case 429 | 503:
            return ServerBusyError(text or f"the upstream answered {status}")
        case 502 | 504:
            return ServerUnreachableError(f"the upstream answered {status}")
        case _:
            return ServerFailedError(f"the upstream answered {status}: {text}")
