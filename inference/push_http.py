"""HTTP/1.1 to model servers: exchanges whose answers are pushed to their receivers.

A pool keeps warm connections to one origin. An exchange is one request on one connection. Owned by one event
loop.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from inference.errors import (
    InferenceError,
    ProtocolError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.http_connection import Connection, Receiver

_log = logging.getLogger(__name__)
_SWEEP_S = 0.25
_SHORT_S = 3.0
"""Silence allowed to an unhealthy endpoint: longer than an engine pauses between two tokens."""


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
        self._connection: Connection | None = None
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

    def _send(self, connection: Connection) -> None:
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
        self._idle: deque[Connection] = deque()
        self._max_idle = max_idle
        self._open: set[Connection] = set()
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

    def take_idle(self) -> Connection | None:
        """The most recently used idle connection."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises OSError or TimeoutError."""
        self._dialling += 1
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self), self.host, self.port, ssl=self._tls
                )
        finally:
            self._dialling -= 1
        return connection

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)

    def give_back(self, connection: Connection) -> None:
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


def request_head(path: str, authority: str, headers: str = "") -> bytes:
    """What all POSTs of JSON to one path have in common; `headers` are lines each ended by CRLF."""
    head = f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n{headers}"
    return head.encode("latin-1")


def http_request(head: bytes, headers: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request; `head` is that of `request_head`, `headers` are further lines."""
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers.encode("latin-1"), len(body), body)
