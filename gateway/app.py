"""The aiohttp application of one gateway process: paths, and errors in OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from gateway.api.errors import (
    INTERNAL_ERROR,
    encode_error,
    method_not_allowed,
    not_found,
    request_too_large,
    shape_of,
)
from gateway.discovery import Discovery
from gateway.entry import CHAT_PATH, COMPLETION_PATH
from gateway.generation import Generation

_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    generation: Generation,
    discovery: Discovery,
    admin_routes: Iterable[web.AbstractRouteDef],
    max_body_bytes: int,
) -> web.Application:
    """Every path of the gateway."""
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_errors_in_openai_shape])
    app.router.add_post(CHAT_PATH, generation.chat)
    app.router.add_post(COMPLETION_PATH, generation.completion)
    app.router.add_get("/v1/models", discovery.models)
    app.router.add_get("/v1/models/{name:.+}", discovery.model)
    app.router.add_get("/healthz", discovery.healthz)
    app.router.add_get("/readyz", discovery.readyz)
    app.router.add_get("/metrics", discovery.metrics)
    app.add_routes(admin_routes)
    return app


@web.middleware
async def _errors_in_openai_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What no handler caught: unknown paths and methods, and failures of the read-only paths."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        error: Exception = not_found(request.method, request.path)
    except web.HTTPMethodNotAllowed as refused:
        error = method_not_allowed(request.method, request.path, " or ".join(sorted(refused.allowed_methods)))
    except web.HTTPRequestEntityTooLarge:
        error = request_too_large(request.client_max_size)
    except web.HTTPException:
        raise
    except Exception as failure:
        error = failure
    shape = shape_of(error)
    if shape.code == INTERNAL_ERROR.code:
        _log.error("request failed unexpectedly", extra={"path": request.path}, exc_info=error)
    headers = {} if shape.retry_after_s is None else {"Retry-After": str(max(1, round(shape.retry_after_s)))}
    return web.Response(
        body=encode_error(shape), status=shape.status, content_type="application/json", headers=headers
    )
