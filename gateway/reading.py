"""What every path that takes a prompt does first: read the body, ask whether the caller may use the model."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.api.errors import ApiError, bad_request, request_too_large
from gateway.config import GatewayConfig
from model_registry.entities import Model
from router.errors import ModelNotAllowedError
from tenancy.keys import Identity


async def read_body(request: web.BaseRequest, config: GatewayConfig) -> bytes:
    """The body, where it has not come together with its head. Raises ApiError 400, 408 or 413."""
    allowed = config.limits.max_body_bytes
    declared = request.content_length
    if declared is not None and declared > allowed:
        raise request_too_large(allowed)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.read()
    except TimeoutError:
        raise _slow_body(config.body_timeout_s) from None
    except web.HTTPRequestEntityTooLarge as error:
        raise request_too_large(allowed) from error
    except web.RequestPayloadError as error:
        raise bad_request(
            "The body is not what its headers say. Send as much as Content-Length says, packed as "
            "Content-Encoding says.",
            code="invalid_body",
        ) from error


def check_allowed(identity: Identity, model: Model) -> None:
    """Raise ModelNotAllowedError where the caller's tenant may not use `model`."""
    allowed = identity.tenant.allowed_models
    if allowed is not None and model.name not in allowed:
        raise ModelNotAllowedError(
            f"The model {model.name!r} does not exist or you do not have access to it. "
            "GET /v1/models lists what there is."
        )


def _slow_body(allowed_s: float) -> ApiError:
    return ApiError(
        408,
        f"The body did not arrive within the {allowed_s:g} s allowed here. Send it at once.",
        code="body_timeout",
    )
