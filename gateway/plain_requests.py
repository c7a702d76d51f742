"""Plain requests: POSTs to the generating paths as nearly all clients send them, read without aiohttp.

Plain is HTTP/1.1, one request at a time, with nothing but a Content-Length around its body. Whatever is
anything else is not judged here: its bytes go to aiohttp, which serves or refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final

import httptools
from aiohttp import web
from aiohttp.http import HttpVersion, HttpVersion11
from msgspec import Struct

_MAX_LINES: Final = 100
"""Below what aiohttp takes of a head."""
_MAX_LENGTH_DIGITS: Final = 20
"""More of them are zeros; Python refuses to read thousands."""
_LENGTH_NAME: Final = b"\r\ncontent-length:"

_ONCE: Final = ("host", "content-length", "content-type", "user-agent")
_READ: Final[Mapping[bytes, str]] = {
    name.encode(): name
    for name in (
        "authorization",
        "x-api-key",
        "traceparent",
        "tracestate",
        "x-enginehouse-explain",
        "x-enginehouse-profile",
        *_ONCE,
    )
}
"""Headers that handlers ask for, and those that a request may have once."""
_PLAIN_VALUES: Final[Mapping[bytes, bytes | None]] = {
    b"connection": b"keep-alive",
    **dict.fromkeys((b"content-encoding", b"expect", b"transfer-encoding", b"upgrade")),
    **dict.fromkeys((b"content-location", b"content-range", b"etag", b"max-forwards", b"server")),
}
"""Headers that make a request something else, unless they have this value."""

Handler = Callable[["web.BaseRequest | PlainRequest"], Awaitable[web.StreamResponse]]


class NotPlainError(Exception):
    """What came is no plain request."""


class PlainRequest(Struct, eq=False):
    """What handlers use of aiohttp's request."""

    handle: Handler
    headers: Mapping[str, str]
    """Names in small letters, without Content-Length."""
    body: bytes
    transport: asyncio.Transport | None
    version: ClassVar[HttpVersion] = HttpVersion11
    keep_alive: ClassVar[bool] = True


class _Head(Struct, frozen=True, gc=False):
    """A head that was read, without the digits of its Content-Length."""

    before: bytes
    after: bytes
    handle: Handler
    headers: Mapping[str, str]


class PlainReader:
    """Reads the requests of one connection, one after the other, until `end`.

    Clients mostly send the same head again and again, but for the length: such a one is not read anew.
    """

    __slots__ = (
        "_came",
        "_came_bytes",
        "_handle",
        "_handlers",
        "_head_bytes",
        "_headers",
        "_known",
        "_max_body_bytes",
        "_max_head_bytes",
        "_odd",
        "_parser",
    )

    def __init__(self, handlers: Mapping[bytes, Handler], max_body_bytes: int, max_head_bytes: int) -> None:
        """See `by_request_line` for `handlers`; `max_head_bytes`: what aiohttp takes of one header."""
        self._handlers = handlers
        self._max_body_bytes = max_body_bytes
        self._max_head_bytes = max_head_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._handle: Handler | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._odd = False
        self._came: list[bytes] = []
        """All that came of the request that is not whole yet, or not plain."""
        self._came_bytes = 0
        self._known: _Head | None = None
        """Of the last request that was parsed."""

    def read(self, data: bytes, transport: asyncio.Transport | None) -> PlainRequest | None:
        """The request whose end `data` brings; None while it is not whole. Raises NotPlainError."""
        if not self._came and (again := self._again(data, transport)) is not None:
            return again
        self._came.append(data)
        self._came_bytes += len(data)
        handle = self._handle
        if handle is None:
            handle = self._begun(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise NotPlainError from None
        headers, came = self._headers, self._came
        digits = headers.get("content-length", "0")
        if self._odd or "host" not in headers or len(digits) > _MAX_LENGTH_DIGITS:
            raise NotPlainError
        length = int(digits)
        if length > self._max_body_bytes:
            raise NotPlainError
        missing = self._head_bytes + length - self._came_bytes
        if missing > 0:
            return None
        if missing < 0:  # more than one request
            raise NotPlainError
        whole = data if len(came) == 1 else b"".join(came)
        self._handle = None
        self._came, self._came_bytes = [], 0
        headers.pop("content-length", None)
        self._known = _known(whole[: self._head_bytes], handle, headers)
        return PlainRequest(handle, headers, whole[self._head_bytes :], transport)

    def _again(self, data: bytes, transport: asyncio.Transport | None) -> PlainRequest | None:
        """The request, where `data` is all of it and its head the last one; None: it has to be parsed."""
        known = self._known
        if known is None or not data.startswith(known.before):
            return None
        start = len(known.before)
        end = data.find(b"\r", start, start + _MAX_LENGTH_DIGITS + 1)
        digits = data[start:end]
        if not digits.isdigit() or not data.startswith(known.after, end):
            return None
        body, length = data[end + len(known.after) :], int(digits)
        if len(body) != length or length > self._max_body_bytes:
            return None
        return PlainRequest(known.handle, known.headers, body, transport)

    def end(self) -> bytes:
        """Read no more; returns what came of a request that is not whole yet, or not plain.

        The parser refers back to its reader: they, and all that came, would lie about until garbage is
        looked for.
        """
        came, self._came = b"".join(self._came), []
        del self._parser
        return came

    def _begun(self, data: bytes) -> Handler:
        """The handler of the request that `data` begins."""
        line_end = data.find(b"\r\n")
        handle = self._handlers.get(data[:line_end])
        head_end = data.find(b"\r\n\r\n", line_end, self._max_head_bytes)
        if handle is None or head_end < 0 or data.count(b"\n", 0, head_end) > _MAX_LINES:
            raise NotPlainError
        self._handle = handle
        self._head_bytes = head_end + 4
        self._headers = {}
        return handle

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        name = name.lower()
        if (known := _READ.get(name)) is not None:
            if known not in self._headers:
                self._headers[known] = value.strip(b" \t").decode("utf-8", "surrogateescape")
            elif known in _ONCE:
                self._odd = True
        elif name in _PLAIN_VALUES and value.lower() != _PLAIN_VALUES[name]:
            self._odd = True


def _known(head: bytes, handle: Handler, headers: Mapping[str, str]) -> _Head | None:
    """A plain head, to be known again; None where it names no length, or with more than a blank before it."""
    name_at = head.lower().find(_LENGTH_NAME)
    if name_at < 0:
        return None
    start = name_at + len(_LENGTH_NAME)
    if head.startswith(b" ", start):
        start += 1
    end = head.index(b"\r", start)
    if not head[start:end].isdigit():
        return None
    return _Head(head[:start], head[end:], handle, headers)


def by_request_line(handlers: Mapping[str, Handler]) -> dict[bytes, Handler]:
    """Handlers of paths by the first line of plain requests to them."""
    return {f"POST {path} HTTP/1.1".encode(): handler for path, handler in handlers.items()}
