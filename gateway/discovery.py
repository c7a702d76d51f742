"""What there is and how it goes: models, health, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from gateway.api.answers import model_answer, models_answer
from gateway.api.errors import ErrorShape, encode_error
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from router.errors import UnknownModelError
from router.profiles import nearest
from telemetry.metrics import CONTENT_TYPE, Metrics
from tenancy.keys import Identity, authenticate


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this process should be sent requests, and why not."""

    ready: bool
    reason: str


class Discovery:
    """The read-only paths of a gateway process."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], readiness: Callable[[], Readiness], metrics: Metrics
    ) -> None:
        self._snapshot = snapshot
        self._readiness = readiness
        self._metrics = metrics

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`: the models that the caller may use."""
        snapshot = self._snapshot()
        identity = authenticate(
            snapshot, request.headers.get("Authorization"), request.headers.get("x-api-key")
        )
        visible = [(m.name, m) for m in snapshot.models.values() if _may_use(identity, m)]
        visible += [(alias, model) for model in snapshot.models.values() for alias in model.aliases
                    if _may_use(identity, model) and alias not in snapshot.models]  # fmt: skip
        return _json(models_answer(sorted(visible, key=lambda pair: pair[0])))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{name}`."""
        snapshot = self._snapshot()
        identity = authenticate(
            snapshot, request.headers.get("Authorization"), request.headers.get("x-api-key")
        )
        name = request.match_info["name"]
        found = snapshot.model(name)
        if found is None or not _may_use(identity, found):
            known = [m.name for m in snapshot.models.values() if _may_use(identity, m)]
            raise UnknownModelError(name, nearest(name, known))
        return _json(model_answer(name, found))

    async def healthz(self, _request: web.Request) -> web.Response:
        """`GET /healthz`: the process answers."""
        return _json(b'{"status":"ok"}')

    async def readyz(self, _request: web.Request) -> web.Response:
        """`GET /readyz`: 200 while this process should be sent requests."""
        readiness = self._readiness()
        if readiness.ready:
            return _json(b'{"status":"ready"}')
        return _json(encode_error(ErrorShape(503, "server_error", "not_ready", readiness.reason)), 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """`GET /metrics`: all workers, in Prometheus' text format."""
        self._metrics.flush()
        page = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})


def _may_use(identity: Identity, model: Model) -> bool:
    allowed = identity.tenant.allowed_models
    return allowed is None or model.name in allowed


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
