"""Query limit: how many entries a list may have, as the query of its request says."""

from __future__ import annotations

from aiohttp import web

from gateway.api.errors import bad_request


def limit_of(request: web.Request, default: int, most: int) -> int:
    """Its `limit`, or `default` where none is given. Raises ApiError 400 for what is not from 1 to `most`."""
    given = request.query.get("limit")
    if given is None:
        return default
    # Python refuses to read numbers of thousands of digits, by an error of its own.
    fits = given.isascii() and given.isdigit() and len(given) <= len(str(most))
    if not fits or not 1 <= int(given) <= most:
        raise bad_request(f"`limit` must be an integer from 1 to {most}.", "limit")
    return int(given)
