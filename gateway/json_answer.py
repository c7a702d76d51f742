"""JSON answer: a whole answer that aiohttp sends, of whatever msgspec can encode."""

from __future__ import annotations

import msgspec
from aiohttp import web


def json_answer(value: object, status: int = 200) -> web.Response:
    """`value` as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
