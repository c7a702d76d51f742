"""Connections: what the gateway does with each of them that is other than aiohttp's server does.

Plain requests (`gateway.plain_requests`) are read and answered here: what aiohttp does around each of them,
two tasks and a stream of its body, costs a seventh of a relayed request. The first bytes that are nothing
plain give the connection to aiohttp, for good. What is no HTTP, or more of it than is taken, aiohttp refuses
in plain text before any path is known; clients of an API read JSON.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from gateway.api.errors import INTERNAL_ERROR, ApiError, encode_error
from gateway.plain_requests import Handler, NotPlainError, PlainReader, PlainRequest, by_request_line

_log = logging.getLogger(__name__)
_REST_WITHIN_S: Final = 1.0
"""The rest of a plain request is waited for so long; then aiohttp waits, as long as settings allow."""
_MAX_AHEAD_BYTES: Final = 64 * 1024
"""What a client may send before it has its answer."""
_UNREAD_FOR_S: Final = 30.0
"""A client that takes nothing of its answer for so long is left."""


class _Connection(web.RequestHandler):
    """One connection."""

    __slots__ = (
        "_ahead",
        "_arrives",
        "_closes",
        "_is_held",
        "_reader",
        "_request",
        "_rest",
        "_room",
        "_serving",
    )

    def __init__(self, server: web.Server, reader: PlainReader, **options: Any) -> None:
        super().__init__(server, **options)
        self._reader: PlainReader | None = reader
        """None once the connection is aiohttp's, or lost."""
        self._rest: asyncio.TimerHandle | None = None
        """Set while a plain request is not whole."""
        self._serving: asyncio.Task[None] | None = None
        """Answers plain requests, one after the other: a task for each would cost more than a wait."""
        self._request: PlainRequest | None = None
        """The plain request that is answered."""
        self._arrives: asyncio.Future[None] | None = None
        """Set while none is answered."""
        self._ahead = bytearray()
        """What came while one was answered."""
        self._closes = False
        """Asked to close, which waits for the answer."""
        self._is_held = False
        """Reading was paused, since bytes came faster than they were taken."""
        self._room: asyncio.Future[None] | None = None
        """Set while the client is to take what it was answered."""

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            super().data_received(data)
            return
        if self._request is not None:
            self._keep_ahead(data)
            return
        if self._force_close or self._close:
            return
        request: PlainRequest | None = None
        try:
            request = reader.read(data, self.transport)
            is_plain = True
        except NotPlainError:
            is_plain = False
        if not is_plain:
            self._hand_over()
        elif request is not None:
            if self._rest is not None:
                self._rest.cancel()
                self._rest = None
            self._request = request
            if self._arrives is not None:
                self._arrives.set_result(None)
            elif self._serving is None:
                self._serving = self._loop.create_task(self._serve())
        elif self._rest is None:
            self._rest = self._loop.call_later(_REST_WITHIN_S, self._hand_over)

    def _hand_over(self) -> None:
        """From here on the connection is aiohttp's, with all that has come of its request."""
        reader, self._reader = self._reader, None
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._arrives is not None:
            self._arrives.set_result(None)
        if reader is not None:
            super().data_received(reader.end())

    async def _serve(self) -> None:
        """Answer what comes, until the connection is aiohttp's, or is to be closed."""
        keeps = True
        try:
            while keeps and self._reader is not None:
                request = self._request
                if request is None:
                    self._arrives = self._loop.create_future()
                    await self._arrives
                    self._arrives = None
                    continue
                response = await request.handle(request)
                if self.writing_paused:
                    await self._taken()
                keeps = bool(response.keep_alive) and not self._closes
                self._request = None
                if keeps:
                    self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                    if self._ahead:
                        self._go_on()
        except Exception:  # handlers answer every error themselves; this one was in their doing so
            _log.exception("request failed unexpectedly")
        finally:
            self._serving = None
            if self._reader is not None:
                self.force_close()

    def _go_on(self) -> None:
        """With what came while a request was answered."""
        data = bytes(self._ahead)
        self._ahead.clear()
        self.resume_reading(resume_parser=False)
        self.data_received(data)

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > _MAX_AHEAD_BYTES and not self._is_held:
            self._is_held = True
            self._pause_transport_reading()

    async def _taken(self) -> None:
        """Return once the client has taken most of its answer; one that takes nothing is left.

        Its next requests would otherwise be answered into the memory, as many as it likes to send.
        """
        while self.writing_paused and (transport := self.transport) is not None:
            unsent = transport.get_write_buffer_size()
            self._room = self._loop.create_future()
            await asyncio.wait([self._room], timeout=_UNREAD_FOR_S)
            if self.writing_paused and transport.get_write_buffer_size() >= unsent:
                self.close()
                transport.abort()
                return

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """What aiohttp does at the end of its requests. Ours write past the writer that it waits for."""
        if "Content-Encoding" in request.headers and not request.content.is_eof():
            # What is left is not read to its end for the client to see the refusal: aiohttp would unpack it,
            # seconds of work for the few bytes that someone without a key sends.
            self._lingering_time = 0.0
        finished = await super().finish_response(request, resp, start_time)
        if self.writing_paused:
            await self._taken()
        return finished

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        if transport is not None and transport.get_write_buffer_size() > 0:
            self._loop.call_later(_UNREAD_FOR_S, transport.abort)  # else it waits for its reader for ever

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._serving is not None:
            self._serving.cancel()
        if self._rest is not None:
            self._rest.cancel()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.end()
        super().connection_lost(exc)

    def close(self) -> None:
        """Take no more requests, and close after the answer under way."""
        self._closes = True
        if self._request is None:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """End the connection; an answer under way is given `timeout` seconds, and cancelled then."""
        if (serving := self._serving) is not None:
            self._closes = True
            if self._request is not None:
                await asyncio.wait([serving], timeout=timeout)
            serving.cancel()
        await super().shutdown(timeout)

    def _process_keepalive(self) -> None:
        if self._request is not None or self._rest is not None:  # to aiohttp the connection looks idle
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def pause_reading(self) -> None:
        self._is_held = True
        super().pause_reading()

    def resume_reading(self, *args: Any, **options: Any) -> None:
        """Resume what was paused. aiohttp asks for it twice a request, and parses nothing once more."""
        if self._is_held:
            self._is_held = False
            super().resume_reading(*args, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs, and raises where an answer has begun
        shape = INTERNAL_ERROR
        if status < 500:
            # The first line, without its bytes: a parser quotes headers, keys among them.
            why = (message or "").strip().partition("\n")[0].partition(", when reading")[0].rstrip(" :.")
            text = f"The request is not valid HTTP: {why or 'it cannot be read'}."
            shape = ApiError(status, text, code="invalid_http").shape
        response = web.Response(body=encode_error(shape), status=status, content_type="application/json")
        response.force_close()
        return response


def _make_request(make: Callable[..., web.BaseRequest], message: Any, *rest: Any) -> web.BaseRequest:
    """One with a chunked body is the last of its connection.

    aiohttp's parser (3.14) takes trailers for headers of the request that follows: who shares a connection
    through a proxy could speak for whoever comes next.
    """
    return make(message._replace(should_close=True) if message.chunked else message, *rest)


class _Server(web.Server):
    new_reader: Callable[[], PlainReader]

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self.new_reader(), loop=self._loop, **self._kwargs)


def own_connections(
    server: web.Server, handlers: Mapping[str, Handler], max_body_bytes: int, max_header_bytes: int
) -> None:
    """Let `server` make its connections here. aiohttp's runners offer no other way to choose their class.

    `handlers` answer plain requests to their paths, with bodies of up to `max_body_bytes`;
    `max_header_bytes`: what aiohttp takes of one header.
    """
    server.__class__ = _Server
    assert isinstance(server, _Server)
    server.request_factory = partial(_make_request, server.request_factory)
    server.new_reader = partial(PlainReader, by_request_line(handlers), max_body_bytes, max_header_bytes)
