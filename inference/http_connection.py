"""Connection: one HTTP/1.1 connection to a model server; what it receives is pushed to a receiver.

It serves one exchange at a time and is called straight from the event loop, so that no task wakes per chunk
(`docs/decisions/0001`). Parsing is llhttp's (httptools).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from inference.delayed_acks import delay_acks
from inference.errors import InferenceError, ProtocolError, ServerTimeoutError
from inference.http_chunks import body_of, is_one_chunk

_IDLE_S = 50.0
"""Idle connections are closed after it: a dead host must not be found out by a request."""
_FRAMING = (b"content-length", b"transfer-encoding")
_LONGEST_HEAD_BYTES = 256 * 1024
"""Of an answer, with the interim ones before it: silence alone does not end a head that never ends."""


class Receiver(Protocol):
    """Takes one HTTP answer; `lost` and `complete` are each other's alternatives.

    One that has a method `header(name, value)` is told every header but those that frame the body. One that
    has `chunk(framed)` is given an HTTP chunk that came alone and whole, with its framing, in place of `body`
    and `flush`.
    """

    def head(self, status: int) -> None: ...

    def body(self, data: bytes) -> None: ...

    def flush(self) -> None:
        """All that one read brought has been handed over."""

    def complete(self) -> None: ...

    def lost(self, error: InferenceError) -> None: ...


class Served(Protocol):
    """The exchange that a connection serves."""

    streams: bool

    @property
    def patience(self) -> object:
        """Of the endpoint that it is for."""

    def allowed_silence_s(self, *, answered: bool) -> float: ...

    def completed(self) -> None: ...

    def failed(self, error: InferenceError) -> None: ...

    def disconnected(self, *, answered: bool) -> None: ...


class Pool(Protocol):
    """The pool that a connection belongs to."""

    origin: str

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def give_back(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One connection; serves one exchange at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._exchange: Served | None = None
        self._receiver: Receiver | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answered = False
        self._framed = False
        """The end of the body is marked; otherwise it ends with the connection."""
        self._heard = False
        """Something came since the last sweep, which is when the clock is read."""
        self._heard_at_s = 0.0
        self._header: Callable[[bytes, bytes], None] | None = None
        """Of a receiver that looks at headers; hardly any does."""
        self._chunk: Callable[[bytes], None] | None = None
        """Of a receiver that takes chunks with their framing."""
        self._chunk_over = False
        """The parser has last seen the end of a chunk."""
        self._at_chunk = False
        """The parser is between two chunks: one that comes whole need not pass through it."""
        self._head_bytes = 0
        """Came before the answer began."""
        self._interim = False
        """The parser is within an answer of 1xx, after which the answer itself comes."""
        self._complete = False
        self._reusable = False
        self._paused = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # what the exchange asks for

    def begin(self, exchange: Served, receiver: Receiver, message: bytes) -> None:
        assert self._transport is not None
        self._exchange = exchange
        self._receiver = receiver
        self._header = getattr(receiver, "header", None)
        self._chunk = getattr(receiver, "chunk", None)
        self._chunk_over = self._at_chunk = False
        self._answered = False
        self._head_bytes = 0
        self._complete = False
        self._framed = False
        self._heard = True
        if exchange.streams and delay_acks is not None:
            delay_acks(self._descriptor)
        self._transport.write(message)

    def flows(self, patience: object, since_s: float) -> bool:
        """Whether an answer under way for `patience` has grown since `since_s`, as far as sweeps tell."""
        exchange = self._exchange
        if exchange is None or exchange.patience is not patience or not self._answered:
            return False
        return self._heard or self._heard_at_s > since_s

    def release(self) -> None:
        self._exchange = None
        self._receiver = None
        if self.usable:
            self._pool.give_back(self)

    def abort(self) -> None:
        self._exchange = None
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self._paused:
            self._paused = False
            self._heard = True
            self._transport.resume_reading()

    def check(self, now_s: float) -> None:
        """Give up on an exchange whose server has been silent for too long."""
        exchange = self._exchange
        if self._paused:
            return
        if self._heard:
            self._heard = False
            self._heard_at_s = now_s
            return
        if exchange is None:
            if now_s - self._heard_at_s > _IDLE_S:
                self.abort()
            return
        allowed_s = exchange.allowed_silence_s(answered=self._answered)
        if now_s - self._heard_at_s > allowed_s:
            self.abort()
            exchange.failed(ServerTimeoutError(f"{self._pool.origin} was silent for {allowed_s:g} s"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        receiver = self._receiver
        if receiver is None:  # nobody asked: a server that speaks out of turn is not to be trusted
            self.abort()
            return
        try:
            if self._at_chunk and is_one_chunk(data):  # most tokens of most streams
                if self._chunk is not None:
                    self._chunk(data)
                else:
                    receiver.body(body_of(data))
                    receiver.flush()
                return
            self._parser.feed_data(data)
        except InferenceError as error:
            self._fail(error)
            return
        except httptools.HttpParserCallbackError as error:
            self._fail(_cause(error))
            return
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ProtocolError(f"{self._pool.origin} sent malformed HTTP: {error}"))
            return
        if not self._answered:
            self._head_bytes += len(data)
            if self._head_bytes > _LONGEST_HEAD_BYTES:
                self._fail(ProtocolError(f"the head of an answer of {self._pool.origin} does not end"))
                return
        self._at_chunk = self._chunk_over and data.endswith(b"\r\n")  # else within the next one's head
        if self._receiver is receiver:
            receiver.flush()
        if self._complete:
            self._done()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.closed(self)
        exchange, self._exchange, self._receiver = self._exchange, None, None
        if exchange is None:
            return
        if self._answered and not self._framed and exc is None:
            exchange.completed()
        else:
            exchange.disconnected(answered=self._answered)

    # httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise ProtocolError(f"{self._pool.origin} sent more than the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in _FRAMING:
            self._framed = True
        elif self._header is not None:
            self._header(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._interim = 100 <= status < 200
        if self._interim:
            self._framed = False
            return
        self._answered = True
        if self._receiver is not None:
            self._receiver.head(status)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body(data)

    def on_chunk_header(self) -> None:
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        self._chunk_over = True

    def on_message_complete(self) -> None:
        if self._interim:
            return
        self._complete = True
        self._reusable = self._parser.should_keep_alive()  # known only until the parser looks further

    def _done(self) -> None:
        exchange, self._exchange, self._receiver = self._exchange, None, None
        self._complete = False
        if self._reusable and self.usable:
            self.resume()
            self._pool.give_back(self)
        elif self._transport is not None:
            self._transport.close()
        if exchange is not None:
            exchange.completed()

    def _fail(self, error: InferenceError) -> None:
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.failed(error)


def _cause(error: BaseException) -> InferenceError:
    """What a receiver raised from within a parser callback."""
    cause = error.__context__ or error.__cause__
    if isinstance(cause, InferenceError):
        return cause
    raise error
