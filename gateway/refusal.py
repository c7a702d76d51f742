"""Refusal: what a client and the log are told of a request that failed."""

from __future__ import annotations

import logging

from gateway.api.errors import ApiError, shape_of
from gateway.entry import Entry
from inference.errors import (
    AdapterError,
    AdapterUnsendableError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)
from router.errors import RouterError

_log = logging.getLogger(__name__)
_OWN_WORDS = (
    ServerUnreachableError,
    ServerTimeoutError,
    StreamBrokenError,
    RouterError,
    AdapterError,
    AdapterUnsendableError,
)
"""Errors whose text is ours; a model server's own words may quote the prompt, which no log may hold."""


def refuse(entry: Entry, error: Exception) -> None:
    """Tell the client, as far as that is still possible."""
    shape = shape_of(error)
    if entry.api is not None and entry.api.translation is not None:
        shape = entry.api.translation.in_clients_words(shape)
    entry.status = shape.status
    entry.error_type = shape.code
    if shape.status >= 500:
        _log_failure(entry, error, unexpected=shape.code == "internal_error")
    response = entry.response
    if response.begun:
        entry.status = 200
        if entry.events is not None:
            response.push(entry.events.error(shape))
        response.break_off()
        return
    retry = (
        b"" if shape.retry_after_s is None else b"retry-after: %d\r\n" % max(1, round(shape.retry_after_s))
    )
    response.respond(shape.status, entry.operation.error(shape), headers=retry)


def timed_out(allowed_s: float) -> ApiError:
    """Of a request that took longer than it may."""
    return ApiError(
        504,
        f"The request took longer than the {allowed_s:g} s allowed here. Ask for fewer tokens, or stream.",
        "server_error",
        "request_timeout",
    )


def _log_failure(entry: Entry, error: Exception, *, unexpected: bool) -> None:
    fields = {
        "request_id": entry.request_id,
        "trace_id": entry.trace.trace_id_hex,
        "model": entry.wish.name if entry.wish else None,
        "error": type(error).__name__,
        "detail": str(error) if isinstance(error, _OWN_WORDS) else None,
    }
    if unexpected:
        _log.error("request failed unexpectedly", extra=fields, exc_info=error)
    else:
        _log.warning("request failed", extra=fields)
