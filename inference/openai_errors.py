"""What an OpenAI-HTTP server says went wrong, by status or within an answer, as one of our errors. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from inference.classify import client_text
from inference.errors import (
    InferenceError,
    PromptTooLongError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerUnreachableError,
    UnsupportedFeatureError,
    UpstreamMisconfiguredError,
)

_LONGEST_TEXT = 200
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises; msgspec lets the last two through as they are."""


class _ErrorAnswer(msgspec.Struct):
    error: Any = None
    """OpenAI: an object; others: a text."""
    message: Any = ""
    """Where some servers put the text instead."""


_error_answer = msgspec.json.Decoder(_ErrorAnswer).decode


def raise_error_in(body: bytes) -> None:
    """Raise what JSON under 200 says went wrong. Only `error` at its top counts: a text may hold the word."""
    error = _error_answer(body).error
    if error is not None:
        raise refusal(_status_of(error), body)


def _status_of(error: Any) -> int:
    """The HTTP status that vLLM and SGLang write into an error they send under 200."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def refusal(status: int, body: bytes) -> InferenceError:
    """The error an upstream's status stands for; its text is passed on only where it is about the request."""
    text, param, code = _told(body)
    match status:
        case 400 if code == "context_length_exceeded":
            return PromptTooLongError(text, param)
        case 400 if code == "unsupported_parameter":
            return UnsupportedFeatureError(text, param or "")
        case 400 | 413 | 422:
            return RequestRefusedError(text or "the upstream refused the request", param)
        case 401 | 403 | 404 | 405:
            return UpstreamMisconfiguredError(f"the upstream answered {status}: {text}")
        case 429 | 503:
            return ServerBusyError(text or f"the upstream answered {status}")
        case 502 | 504:
            return ServerUnreachableError(f"the upstream answered {status}")
        case _:
            return ServerFailedError(f"the upstream answered {status}: {text}")


def _told(body: bytes) -> tuple[str, str | None, str | None]:
    """An error's text, the field it names, and its code; of what is not JSON, its beginning."""
    try:
        answer = _error_answer(body)
    except UNREADABLE:
        return client_text(body[:_LONGEST_TEXT].decode("utf-8", "replace")), None, None
    error = answer.error if isinstance(answer.error, dict) else {"message": answer.error or answer.message}
    text, param, code = (error.get(name) for name in ("message", "param", "code"))
    return (
        client_text(text) if isinstance(text, str) else "",
        param if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )
