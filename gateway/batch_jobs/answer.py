"""RowAnswer: an answer that is kept instead of being sent, and what a job makes of it."""

from __future__ import annotations

from typing import NamedTuple

from gateway.streaming.client import JSON, PushResponse
from inference.request import Usage

_WAIT_CODES = frozenset(
    {"no_endpoints", "server_busy", "draining", "not_routed", "rate_limit_exceeded"}
) | frozenset({"keys_not_loaded", "invalid_api_key", "key_disabled"})
"""There is no room now, or not for the job's tenant or key: that says nothing about the row."""
_TRY_AGAIN_STATUS = 500


class KeptResponse(PushResponse):
    """A response without a connection; rows are never streamed, so all of it comes at once."""

    def __init__(self) -> None:
        # Not PushResponse's own __init__: there is no transport here.
        self.begun = False
        self.body = b""

    def add_headers(self, lines: bytes) -> None:
        """There is no head."""

    def respond(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:  # noqa: ARG002
        self.begun = True
        self.body = body


class RowAnswer(NamedTuple):
    """How one row was answered."""

    status: int
    body: bytes
    request_id: str
    code: str | None
    """Of the error; None: it was answered well."""
    usage: Usage

    @property
    def waits(self) -> bool:
        """No result at all: the row is run again when there is room."""
        return self.code in _WAIT_CODES

    @property
    def may_be_retried(self) -> bool:
        """The failure is not the row's own, as far as can be told."""
        return self.status >= _TRY_AGAIN_STATUS or self.status == 429
