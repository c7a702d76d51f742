"""PushResponse: bytes straight to the client's transport, without a task per chunk.

The connection reads the request and notices a client that leaves; the answer goes past aiohttp's
writer, because awaiting each write costs more CPU than everything else the gateway does with a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.plain_requests import PlainRequest
from inference.http_chunks import body_of, framed
from inference.sink import Call

_RESUME_POLL_S = 0.02
_LINGER_S = 30.0
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"


class PushResponse(web.StreamResponse):
    """One answer, written whole (`respond`) or as a stream (`begin`, `push`, `flush`, `finish`)."""

    def __init__(
        self, request: web.BaseRequest | PlainRequest, headers: bytes, high_water_bytes: int
    ) -> None:
        # Not StreamResponse's own __init__: what it prepares (headers, cookies, state) is never used here.
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        self._transport: asyncio.Transport = transport
        self._extra_headers = headers
        self._high_water_bytes = high_water_bytes
        self._chunks: list[bytes] = []
        self._calls: list[Call] = []
        self._blocked = False
        self._chunked_body = request.version >= (1, 1)
        self._keep_alive = request.keep_alive and self._chunked_body
        self.begun = False
        self.more_headers: Callable[[], bytes] | None = None
        """Header lines that are made when the head is."""

    def add_headers(self, lines: bytes) -> None:
        """More lines of the head, each with its end; nothing once it is written."""
        self._extra_headers += lines

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Nothing to prepare: this response writes its own head."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing to end: this response has written its own end."""

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """The whole answer at once."""
        self.begun = True
        if self.more_headers is not None:
            headers += self.more_headers()
        self._write(
            b"%bcontent-type: %b\r\n%b%b%bcontent-length: %d\r\n\r\n%b"
            % (
                _STATUS_LINES[status],
                content_type,
                self._extra_headers,
                headers,
                b"" if self._keep_alive else b"connection: close\r\n",
                len(body),
                body,
            )
        )

    def begin(self) -> None:
        """The head of an event stream; goes out with the first flush."""
        self.begun = True
        framing = b"transfer-encoding: chunked\r\n" if self._chunked_body else b""
        connection = b"" if self._keep_alive else b"connection: close\r\n"
        if self.more_headers is not None:
            connection += self.more_headers()
        self._head = b"%bcontent-type: %b\r\ncache-control: no-cache\r\n%b%b%b\r\n" % (
            _STATUS_LINES[200],
            SSE,
            self._extra_headers,
            framing,
            connection,
        )

    _head = b""

    def push(self, data: bytes) -> None:
        """Add to what the next flush writes. Nothing is not added: a chunk of no bytes ends an answer."""
        if data:
            self._chunks.append(data)

    def flush(self) -> None:
        """Write what was pushed as one HTTP chunk, in one system call."""
        chunks = self._chunks
        if not chunks:
            return
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        transport = self._transport
        if self._head or not self._chunked_body:
            self._write(self._head + (framed(data) if self._chunked_body else data))
            self._head = b""
        elif not transport.is_closing():
            transport.write(framed(data))
        if transport.get_write_buffer_size() > self._high_water_bytes and not self._blocked:
            self._block()

    def pass_on(self, chunk: bytes) -> None:
        """As `push` and `flush`, for what is framed as one HTTP chunk already."""
        if self._head or self._chunks or not self._chunked_body:
            self.push(body_of(chunk))
            self.flush()
            return
        transport = self._transport
        if not transport.is_closing():
            transport.write(chunk)
        if transport.get_write_buffer_size() > self._high_water_bytes and not self._blocked:
            self._block()

    def finish(self) -> None:
        """The clean end of a stream, together with what was pushed last."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        if not self._chunked_body:
            self._write(self._head + data)
        elif data:
            self._write(self._head + framed(data) + b"0\r\n\r\n")
        else:
            self._write(self._head + b"0\r\n\r\n")
        self._head = b""
        if self._transport.get_write_buffer_size() > self._high_water_bytes // 4:
            self.close_after()  # its next request may not wait behind what it does not read
            self._linger()

    def _write(self, data: bytes) -> None:
        """A client that has left is noticed by the request's task; until then its bytes go nowhere."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def break_off(self) -> None:
        """End a stream so that no client takes it for complete: the closing chunk never comes."""
        self.flush()
        self._keep_alive = False
        self._transport.close()
        self._linger()

    def close_after(self) -> None:
        """Let the client connect anew for its next request."""
        self._keep_alive = False

    def _linger(self) -> None:
        """A client that does not read what is left gets some time for it, not the connection for ever."""
        asyncio.get_running_loop().call_later(_LINGER_S, self._abort_unread)

    def _abort_unread(self) -> None:
        if self._transport.get_write_buffer_size() > 0:
            self._transport.abort()

    def feeds_from(self, call: Call) -> None:
        """`call` is paused while the client's buffer is high."""
        self._calls.append(call)
        if self._blocked:
            call.pause()

    def _block(self) -> None:
        self._blocked = True
        for call in self._calls:
            call.pause()
        self._poll()

    def _poll(self) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._high_water_bytes // 4:
            asyncio.get_running_loop().call_later(_RESUME_POLL_S, self._poll)
            return
        self._blocked = False
        for call in self._calls:
            call.resume()
