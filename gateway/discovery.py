"""What there is and how it goes: models, health, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aiohttp import web

from gateway.api.answers import Shown, model_answer, models_answer
from gateway.api.errors import ErrorShape, encode_error
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
        shown = (one for one in _names(snapshot) if _may_see(identity, one))
        return _json(models_answer(sorted(shown, key=lambda one: one.name)))

    async def model(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{name}`."""
        snapshot = self._snapshot()
        identity = authenticate(
            snapshot, request.headers.get("Authorization"), request.headers.get("x-api-key")
        )
        name = request.match_info["name"]
        found = _named(snapshot, name)
        if found is None or not _may_see(identity, found):
            known = [one.name for one in _names(snapshot) if _may_see(identity, one)]
            raise UnknownModelError(name, nearest(name, known))
        return _json(model_answer(found))

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


def _names(snapshot: Snapshot) -> Iterator[Shown]:
    """Every name that a client may ask for, aliases included; a model's own name wins over an alias."""
    for model in snapshot.models.values():
        yield Shown(model.name, model)
    for alias, name in snapshot.aliases.items():
        if alias not in snapshot.models:
            yield Shown(alias, snapshot.models[name])
    for name, adapter in (*snapshot.adapters.items(), *snapshot.adapter_aliases.items()):
        if adapter.model in snapshot.models:
            yield Shown(name, snapshot.models[adapter.model], adapter)


def _may_see(identity: Identity, shown: Shown) -> bool:
    return identity.policy.allows(shown.model, shown.adapter, shown.name)


def _named(snapshot: Snapshot, name: str) -> Shown | None:
    """What `name` stands for."""
    if (model := snapshot.model(name)) is not None:
        return Shown(name, model)
    if (adapter := snapshot.adapter(name)) is not None and adapter.model in snapshot.models:
        return Shown(name, snapshot.models[adapter.model], adapter)
    return None


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
