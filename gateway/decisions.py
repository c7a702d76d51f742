"""Decisions: what the router decided lately, for operators by the admin API, for clients by a header.

    GET /admin/v1/decisions  ?request_id=  ?model=  ?limit=

Each worker keeps its own; the answer says which one it is, of how many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from gateway.admin import require_admin
from gateway.json_answer import json_answer
from gateway.query_limit import limit_of
from model_registry.snapshot import Snapshot
from router.attempts import Router
from router.explain import as_dict, line
from telemetry.request_trace import AttemptTrace

ASKED = frozenset({"1", "true"})
"""Values of the client's `x-enginehouse-explain` that ask for the header."""
_MOST = 1000
_LIMIT = 20


def decision_routes(
    router: Router, snapshot: Callable[[], Snapshot], worker: int, workers: int
) -> list[web.AbstractRouteDef]:
    """The routes of worker number `worker` of `workers`."""

    async def decisions(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        query = request.query
        found = router.decisions.find(
            query.get("request_id"), query.get("model"), limit_of(request, _LIMIT, _MOST)
        )
        why_left = router.paces.why_left
        told = {
            "worker": worker,
            "workers": workers,
            "kept": len(router.decisions),
            "decisions": [as_dict(one, why_left) for one in found],
        }
        return json_answer(told)

    return [web.get("/admin/v1/decisions", decisions)]


def header_of(router: Router, request_id: str, attempts: Sequence[AttemptTrace]) -> bytes:
    """The `x-enginehouse-decision` line of an answer whose head is being made; empty without a decision."""
    found = router.decisions.find(request_id, None, _MOST)
    if not found:
        return b""
    first = [one.endpoint for one in attempts if one.first_token_ns is not None]
    return f"x-enginehouse-decision: {line(found, first[-1] if first else None)}\r\n".encode()
