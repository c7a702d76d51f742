"""Server-sent events with a name, as the APIs have them that came after chat completions."""

from __future__ import annotations

from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode


def event(body: dict[str, Any]) -> bytes:
    """One whole event; its name is the body's `type`."""
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), encode(body))


def event_head(body: dict[str, Any], last: str) -> bytes:
    """An event up to the value of one more key, `last`, for events that are sent over and over."""
    return b'event: %b\ndata: %b,"%b":' % (body["type"].encode(), encode(body)[:-1], last.encode())
