"""Connections: what aiohttp's server does with each of them that is other than we need.

What is no HTTP, or more of it than is taken, it refuses in plain text before any path is known; clients of an
API read JSON.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.errors import INTERNAL_ERROR, ApiError, encode_error


class _Connection(web.RequestHandler):
    """One connection, whose refusals are in OpenAI's shape."""

    __slots__ = ("_is_held",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_held = False
        """Reading was paused, since a body came faster than it was taken."""

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
            first = (message or "").strip().split("\n")[0]
            shape = ApiError(status, f"The request is not valid HTTP: {first}", code="invalid_http").shape
        response = web.Response(body=encode_error(shape), status=status, content_type="application/json")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def own_connections(server: web.Server) -> None:
    """Let `server` make its connections here. aiohttp's runners offer no other way to choose their class."""
    server.__class__ = _Server
