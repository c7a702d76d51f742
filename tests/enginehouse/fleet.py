"""Several real gateways on one Redis, before a model server that counts what it has at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from redis.asyncio import Redis

from enginehouse.first_key import create_first_key
from enginehouse.local.ports import free_port
from model_registry.cards import GoodputCard
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.slices.store import SliceStore
from model_registry.store import RegistryStore
from model_registry.tenants import Tenant
from tests.command_line import plain_environment
from tests.model_registry.conftest import eventually, patient

PROMPT_TOKENS, COMPLETION_TOKENS = 10, 5


class CountingServer:
    """Speaks OpenAI's chat; every answer takes `takes_s`."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.in_flight = 0
        self.most = 0
        self.begun_s: list[float] = []

    async def chat(self, _request: web.Request) -> web.Response:
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.begun_s.append(time.monotonic())
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.in_flight -= 1
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "model": "m",
                "created": 1,
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}
                ],
                "usage": {
                    "prompt_tokens": PROMPT_TOKENS,
                    "completion_tokens": COMPLETION_TOKENS,
                    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
                },
            }
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
        await runner.cleanup()


class Fleet:
    """The gateways, and a client with the tenant's key."""

    def __init__(self, session: aiohttp.ClientSession, ports: Sequence[int]) -> None:
        self.session = session
        self.ports = ports
        self.processes: list[subprocess.Popen[bytes]] = []

    async def ask(self, gateway: int = 0, **more: Any) -> aiohttp.ClientResponse:
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Well?"}], **more}
        url = f"http://127.0.0.1:{self.ports[gateway]}/v1/chat/completions"
        async with self.session.post(url, json=body) as response:
            await response.read()
            return response

    async def status(self, gateway: int = 0, **more: Any) -> int:
        """0: there was no answer."""
        try:
            return (await self.ask(gateway, **more)).status
        except aiohttp.ClientError:
            return 0

    async def ready(self) -> bool:
        """Whether whoever of a port's workers takes a connection is ready."""
        for port in 8 * tuple(self.ports):
            try:
                async with self.session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status != 200:
                        return False
            except aiohttp.ClientError:
                return False
        return True

    def kill(self, gateway: int) -> None:
        """End a gateway and its workers by SIGKILL."""
        parent = psutil.Process(self.processes[gateway].pid)
        parent.suspend()  # it would start them again, and without it they would begin to end by themselves
        for one in (*parent.children(recursive=True), parent):
            one.kill()


@asynccontextmanager
async def fleet(
    config: RegistryConfig,
    redis: Redis,
    upstream: str,
    folder: Path,
    tenant: Tenant,
    *,
    gateways: int = 2,
    workers: int = 2,
    slots: int = 64,
    card: GoodputCard | None = None,
    **settings: str,
) -> AsyncIterator[Fleet]:
    """Ready, with one endpoint of `slots` slots and a key of `tenant`."""
    store = RegistryStore.of(redis, patient(config))
    key = await create_first_key(patient(config), "k", tenant.name, admin=False)
    model = Model(name="m", context_length=2048)
    deployment = Deployment(name="d", model="m", lane="openai-http", servers=(ServerRef(http=upstream),))
    await store.apply([model, deployment, tenant])
    endpoint = Endpoint(
        name="d@engine", deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
        http=upstream, state="ready", max_concurrency=slots, card=card,
    )  # fmt: skip
    await store.register_endpoint(endpoint, ttl_s=600)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # so that the kernel spreads over workers
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"}, connector=connector
    ) as session:
        found = Fleet(session, [free_port() for _ in range(gateways)])
        try:
            for number, port in enumerate(found.ports):
                environment = plain_environment(
                    ENGINEHOUSE_REGISTRY__REDIS_URL=config.redis_url,
                    ENGINEHOUSE_REGISTRY__NAME=config.name,
                    ENGINEHOUSE_GATEWAY__PORT=str(port),
                    ENGINEHOUSE_GATEWAY__WORKERS=str(workers),
                    ENGINEHOUSE_SLICES__EXPECTED_WORKERS=str(gateways * workers),
                    **settings,
                )
                with (folder / f"gateway-{number}.log").open("wb") as log:
                    process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                        [sys.executable, "-m", "enginehouse", "gateway"], env=environment, stderr=log
                    )
                found.processes.append(process)
            await eventually(found.ready, within_s=180, every_s=0.1)
            share = SliceStore.of(redis, config)

            async def all_share() -> bool:
                nobody = await share.report("nobody", 1, 0.0, "", [], 1.0)
                return nobody.workers == gateways * workers and await found.ready()

            await eventually(all_share, within_s=90, every_s=0.1)
            yield found
        finally:
            for process in found.processes:
                if process.poll() is None:
                    process.terminate()
            for process in found.processes:
                await asyncio.to_thread(process.wait, 60)
