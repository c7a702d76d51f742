"""Bytes that are no HTTP, or more of it than is taken: refused by aiohttp before any path is known.

What it refuses with is plain text; clients of an API read JSON.
"""

from __future__ import annotations

from aiohttp import web

from gateway.api.errors import INTERNAL_ERROR, ApiError, encode_error


class _Connection(web.RequestHandler):
    """One connection, whose refusals are in OpenAI's shape."""

    __slots__ = ()

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


def refuse_in_json(server: web.Server) -> None:
    """Let `server` make its connections here. aiohttp's runners offer no other way to choose their class."""
    server.__class__ = _Server
