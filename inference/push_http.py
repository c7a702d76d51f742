"""HTTP/1.1 connections to model servers that push what they receive.

A pool keeps warm connections to one origin. An exchange is one request on one connection; its receiver is
called straight from `data_received`, so that no task wakes per chunk (`docs/decisions/0001`). Parsing is
llhttp's (httptools). Owned by one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from inference.delayed_acks import delay_acks
from inference.errors import (
    InferenceError,
    ProtocolError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.http_chunks import body_of, is_one_chunk

_log = logging.getLogger(__name__)
_SWEEP_S = 0.25
_IDLE_S = 50.0
"""Idle connections are closed after it: a dead host must not be found out by a request."""
_SHORT_S = 3.0
"""Silence allowed to an unhealthy endpoint: longer than an engine pauses between two tokens."""
_FRAMING = (b"content-length", b"transfer-encoding")


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


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an exchange may take to connect, to begin its answer, and to pause within it."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    whole_s: float = 600.0
    """For an answer that comes in one piece: its first byte is its last."""


class Patience:
    """How long calls to one endpoint may be silent; shared by all of them."""

    __slots__ = ("is_short",)

    def __init__(self) -> None:
        self.is_short = False
        """The endpoint is known to be unhealthy: who has heard nothing for a moment waits in vain."""


class Exchange:
    """One request and its answer. Cancelling closes the connection: that is how a server learns of it."""

    __slots__ = (
        "_connection",
        "_message",
        "_patience",
        "_pool",
        "_receiver",
        "_task",
        "first_byte_s",
        "over",
        "paused",
        "reused",
        "streams",
    )

    def __init__(
        self, pool: HttpPool, message: bytes, receiver: Receiver, streams: bool, patience: Patience | None
    ) -> None:
        self._pool = pool
        self._patience = patience
        self.streams = streams
        self.first_byte_s = pool.timeouts.first_byte_s if streams else pool.timeouts.whole_s
        self._message = message
        self._receiver: Receiver | None = receiver
        self._connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self.over = False
        self.paused = False
        self.reused = False
        connection = pool.take_idle()
        if connection is None:
            self._dial()
        else:
            self.reused = True
            self._send(connection)

    def cancel(self) -> None:
        if self.over:
            return
        self._finish()
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abort()

    def pause(self) -> None:
        if self.over:  # the connection may serve somebody else by now
            return
        self.paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self.over:
            return
        self.paused = False
        if self._connection is not None:
            self._connection.resume()

    @property
    def patience(self) -> Patience | None:
        """Of the endpoint that it is for."""
        return self._patience

    def allowed_silence_s(self, *, answered: bool) -> float:
        """How long the server may say nothing now."""
        allowed_s = self._pool.timeouts.idle_s if answered else self.first_byte_s
        is_short = self._patience is not None and self._patience.is_short
        return min(allowed_s, _SHORT_S) if is_short else allowed_s

    def completed(self) -> None:
        receiver = self._finish()
        if receiver is None:
            return
        try:
            receiver.complete()
        except InferenceError as error:
            receiver.lost(error)
        except Exception as error:  # whatever the server sent: its request must end
            _log.exception("answer could not be read", extra={"origin": self._pool.origin})
            receiver.lost(
                ProtocolError(f"an unreadable answer of {self._pool.origin}: {type(error).__name__}")
            )

    def failed(self, error: InferenceError) -> None:
        receiver = self._finish()
        if receiver is not None:
            receiver.lost(error)

    def disconnected(self, *, answered: bool) -> None:
        """The connection went away under the request."""
        if self.over:
            return
        if answered:
            self.failed(StreamBrokenError(f"{self._pool.origin} closed the connection within an answer"))
        elif self.reused:
            # The server closed a warm connection as the request went out: it was never looked at.
            self.reused = False
            self._connection = None
            self._dial()
        else:
            self.failed(
                ServerUnreachableError(f"{self._pool.origin} closed the connection without an answer")
            )

    def _dial(self) -> None:
        self._task = self._pool.loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            connection = await self._pool.connect()
        except (OSError, TimeoutError, UnicodeError) as error:  # the last: a host name that IDNA refuses
            self.failed(
                ServerUnreachableError(f"cannot connect to {self._pool.origin}: {error or 'timed out'}")
            )
            return
        finally:
            self._task = None
        if self.over:
            connection.release()
        else:
            self._send(connection)

    def _send(self, connection: _Connection) -> None:
        assert self._receiver is not None
        self._connection = connection
        connection.begin(self, self._receiver, self._message)
        if self.paused:
            connection.pause()

    def _finish(self) -> Receiver | None:
        receiver, self._receiver = self._receiver, None
        self.over = True
        return receiver


class HttpPool:
    """Warm connections to one origin (`http://host:port`)."""

    def __init__(self, origin: str, timeouts: Timeouts, max_idle: int = 512) -> None:
        parts = urlsplit(origin)
        self.origin = origin
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self.timeouts = timeouts
        self.loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: deque[_Connection] = deque()
        self._max_idle = max_idle
        self._open: set[_Connection] = set()
        self._dialling = 0
        self._closed = False
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)

    def start(
        self, message: bytes, receiver: Receiver, streams: bool = True, patience: Patience | None = None
    ) -> Exchange:
        """Send `message` (a whole HTTP request); its answer is pushed to `receiver`.

        `streams`: the answer begins long before it ends, so its first byte is waited for less.
        """
        return Exchange(self, message, receiver, streams, patience)

    def flows(self, patience: Patience) -> bool:
        """Whether an answer of the endpoint that `patience` belongs to has grown within two sweeps."""
        since_s = self.loop.time() - _SWEEP_S
        return any(connection.flows(patience, since_s) for connection in self._open)

    def take_idle(self) -> _Connection | None:
        """The most recently used idle connection."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self) -> _Connection:
        """A new connection. Raises OSError or TimeoutError."""
        self._dialling += 1
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self), self.host, self.port, ssl=self._tls
                )
        finally:
            self._dialling -= 1
        return connection

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)

    def give_back(self, connection: _Connection) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.abort()
        else:
            self._idle.append(connection)

    def retire(self) -> None:
        """Close idle connections now and busy ones when their exchange ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def close(self) -> None:
        """Close every connection; exchanges under way are lost."""
        self._closed = True
        self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    def _sweep(self) -> None:
        """One timer for all connections: a timer per request would cost more than it guards."""
        now = self.loop.time()
        for connection in list(self._open):
            connection.check(now)
        if self._open or self._dialling or not self._closed:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)


class _Connection(asyncio.Protocol):
    """One connection; serves one exchange at a time."""

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._descriptor = -1
        self._exchange: Exchange | None = None
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
        self._complete = False
        self._reusable = False
        self._paused = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # what the exchange asks for

    def begin(self, exchange: Exchange, receiver: Receiver, message: bytes) -> None:
        assert self._transport is not None
        self._exchange = exchange
        self._receiver = receiver
        self._header = getattr(receiver, "header", None)
        self._chunk = getattr(receiver, "chunk", None)
        self._chunk_over = self._at_chunk = False
        self._answered = False
        self._complete = False
        self._framed = False
        self._heard = True
        if exchange.streams and delay_acks is not None:
            delay_acks(self._descriptor)
        self._transport.write(message)

    def flows(self, patience: Patience, since_s: float) -> bool:
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
        except httptools.HttpParserError as error:
            self._fail(ProtocolError(f"{self._pool.origin} sent malformed HTTP: {error}"))
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

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in _FRAMING:
            self._framed = True
        elif self._header is not None:
            self._header(name, value)

    def on_headers_complete(self) -> None:
        self._answered = True
        if self._receiver is not None:
            self._receiver.head(self._parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body(data)

    def on_chunk_header(self) -> None:
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        self._chunk_over = True

    def on_message_complete(self) -> None:
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


def request_head(path: str, authority: str, headers: str = "") -> bytes:
    """What all POSTs of JSON to one path have in common; `headers` are lines each ended by CRLF."""
    head = f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n{headers}"
    return head.encode("latin-1")


def http_request(head: bytes, headers: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request; `head` is that of `request_head`, `headers` are further lines."""
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers.encode("latin-1"), len(body), body)
