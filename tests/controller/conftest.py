"""A real Redis and real model servers of the OpenAI-HTTP kind, whose health the test decides."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.model_registry.conftest import RedisServer, config, redis_client, redis_server, store

__all__ = ["ModelServer", "RedisServer", "config", "model_server", "redis_client", "redis_server", "store"]


class ModelServer:
    """Answers `/v1/models` while `serving`; each `start` takes the port it had before."""

    def __init__(self) -> None:
        self.serving = True
        self.asked = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _models(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if not self.serving:
            raise web.HTTPServiceUnavailable
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model"}]})

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@pytest.fixture
async def model_server() -> AsyncIterator[ModelServer]:
    server = ModelServer()
    await server.start()
    yield server
    await server.stop()
