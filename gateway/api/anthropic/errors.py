"""Errors in Anthropic's shape. The statuses are those of the one table; only the words differ."""

from __future__ import annotations

from typing import Any

from gateway.api.errors import INTERNAL_ERROR, ErrorShape
from gateway.api.sse import encode, event

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_object(shape: ErrorShape) -> dict[str, Any]:
    """`shape` as the body of an answer or the data of an event."""
    other = "invalid_request_error" if shape.status < 500 else "api_error"
    message = shape.message or INTERNAL_ERROR.message
    return {"type": "error", "error": {"type": _TYPES.get(shape.status, other), "message": message}}


def encode_error(shape: ErrorShape) -> bytes:
    """The JSON body of an error answer."""
    return encode(error_object(shape))


def encode_error_event(shape: ErrorShape) -> bytes:
    """The server-sent event that ends a broken stream."""
    return event(error_object(shape))
