"""Forecasts: what each endpoint's forecast began with and what it has learned, for operators and for scaling.

    GET /admin/v1/forecasts  ?model=

Each worker learns from its own streams; the answer says which one it is, of how many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.admin import require_admin
from gateway.json_answer import json_answer
from model_registry.entities import Endpoint
from model_registry.snapshot import Snapshot
from router.deciding import Deciding


def forecast_routes(
    deciding: Deciding, snapshot: Callable[[], Snapshot], worker: int, workers: int
) -> list[web.AbstractRouteDef]:
    """The routes of worker number `worker` of `workers`."""

    async def forecasts(request: web.Request) -> web.Response:
        require_admin(snapshot(), request)
        model = request.query.get("model")
        endpoints = [one for group in snapshot().endpoints.values() for one in group]
        now_s = asyncio.get_running_loop().time()
        told = [_of(deciding, one, now_s) for one in endpoints if model in (None, one.model)]
        answer = {"worker": worker, "workers": workers, "forecasts": told}
        return json_answer(answer)

    return [web.get("/admin/v1/forecasts", forecasts)]


def _of(deciding: Deciding, endpoint: Endpoint, now_s: float) -> dict[str, Any]:
    return {
        "endpoint": endpoint.name,
        "deployment": endpoint.deployment,
        "model": endpoint.model,
        "profile": endpoint.profile,
        "card": None if endpoint.card is None else endpoint.card.model_dump(mode="json"),
        "learned": deciding.forecasts.of(endpoint.name).learned(now_s)._asdict(),
    }
