"""The bytes of a request's body, within the size and the time allowed."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.api.errors import ApiError, bad_request, request_too_large
from gateway.config import GatewayConfig


async def read_body(request: web.BaseRequest, config: GatewayConfig) -> bytes:
    """The whole body. Raises ApiError 400, 408 or 413."""
    declared = declared_bytes(request)
    if declared is not None and declared > config.limits.max_body_bytes:
        raise request_too_large(config.limits.max_body_bytes)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.read()
    except TimeoutError:
        raise _slow_body(config.body_timeout_s) from None
    except web.HTTPRequestEntityTooLarge as error:
        raise request_too_large(config.limits.max_body_bytes) from error
    except web.RequestPayloadError as error:
        raise bad_request(
            "The body is not what its headers say. Send as much as Content-Length says, packed as "
            "Content-Encoding says.",
            code="invalid_body",
        ) from error


def _slow_body(allowed_s: float) -> ApiError:
    return ApiError(
        408,
        f"The body did not arrive within the {allowed_s:g} s allowed here. Send it at once.",
        code="body_timeout",
    )


def declared_bytes(request: web.BaseRequest) -> int | None:
    """What Content-Length says. Raises ApiError 400."""
    try:
        return request.content_length
    except ValueError:  # Python does not read numbers of thousands of digits
        message = "Content-Length has too many digits. Send it without leading zeros."
        raise bad_request(message, code="invalid_http") from None
