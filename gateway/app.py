"""The aiohttp application of one gateway process: paths, and errors in the shape of each path's API.

There is no middleware: the generating paths end every error themselves, the others are wrapped one by one.
A middleware would cost each generated answer a frame for the sake of paths that nobody hurries on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from gateway.api.anthropic import errors as anthropic
from gateway.api.errors import (
    INTERNAL_ERROR,
    ErrorShape,
    encode_error,
    method_not_allowed,
    not_found,
    request_too_large,
    shape_of,
)
from gateway.discovery import Discovery
from gateway.generation import Generation

_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    generation: Generation,
    discovery: Discovery,
    more_routes: Iterable[web.AbstractRouteDef],
    max_body_bytes: int,
) -> web.Application:
    """Every path of the gateway."""
    app = web.Application(client_max_size=max_body_bytes)
    for path, handler in generation.handlers.items():
        app.router.add_post(path, handler)
    reading = [
        web.get("/v1/models", discovery.models),
        web.get("/v1/models/{name:.+}", discovery.model),
        web.get("/healthz", discovery.healthz),
        web.get("/readyz", discovery.readyz),
        web.get("/metrics", discovery.metrics),
    ]
    app.add_routes(guarded([*reading, *more_routes, web.route("*", "/{path:.*}", _unknown(app))]))
    return app


def guarded(routes: Iterable[web.AbstractRouteDef]) -> list[web.RouteDef]:
    """`routes` with everything that their handlers raise answered in OpenAI's shape."""
    return [
        web.route(route.method, route.path, _guarded(route.handler), **route.kwargs)
        for route in routes
        if isinstance(route, web.RouteDef)
    ]


def _guarded(handler: Handler) -> Handler:
    """`handler`, with everything that it raises answered in OpenAI's shape."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            error: Exception = request_too_large(request.client_max_size)
        except web.HTTPException:
            raise
        except Exception as failure:
            error = failure
        shape = shape_of(error)
        if shape.code == INTERNAL_ERROR.code:
            _log.error("request failed unexpectedly", extra={"path": request.path}, exc_info=error)
        wait_s = shape.retry_after_s
        headers = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
        return web.Response(
            body=_error_body(request.path, shape),
            status=shape.status,
            content_type="application/json",
            headers=headers,
        )

    return answer


def _error_body(path: str, shape: ErrorShape) -> bytes:
    """In the words of the API that the path belongs to."""
    return (anthropic.encode_error if path.startswith("/v1/messages") else encode_error)(shape)


def _unknown(app: web.Application) -> Handler:
    """The handler of what no path fits: 405 where another method would, else 404."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        allowed = await _methods(app, request)
        if allowed:
            raise method_not_allowed(request.method, request.path, " or ".join(sorted(allowed)))
        raise not_found(request.method, request.path)

    return refuse


async def _methods(app: web.Application, request: web.Request) -> set[str]:
    """Methods that the request's path has handlers for."""
    found: set[str] = set()
    for resource in app.router.resources():
        _, methods = await resource.resolve(request)
        if "*" not in methods:
            found |= methods
    return found - {"HEAD"}
