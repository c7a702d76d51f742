"""Stack: Redis, a controller and gateways for a campaign, and the calls that change what they serve.

Every process is a session of its own and is ended by its pid when the block ends, however it ends.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.build import BenchError
from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.local.model_servers import http_probe
from enginehouse.local.ports import free_port
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.service import CommandService, Service
from enginehouse.manifests import ManifestFile, apply_files
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key

STOP_S = 8.0
CHANGE_TIMEOUT_S = 15.0
Manifest = dict[str, Any]


class Stack:
    """What runs, and the calls that change it."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.session = session
        self.redis_url = ""
        self.gateways: list[str] = []
        """Roots of their URLs."""
        self.keys: dict[str, str] = {}
        """Keys in clear, by tenant; `admin` for the admin API."""
        self.services: dict[str, Service] = {}

    async def apply(self, *manifests: Manifest, gateway: int = 0) -> None:
        """As `enginehouse apply` does; returns when every gateway serves from it."""
        text = yaml.safe_dump_all([{"apiVersion": "enginehouse/v1", **one} for one in manifests])
        await apply_files(self.admin(gateway), [ManifestFile("bench.yaml", text)], dry_run=False)
        version = (await self.snapshot(gateway))["version"]
        await self.until(lambda shown: shown["version"] >= version, "the change")

    def admin(self, gateway: int = 0) -> Connection:
        """To a gateway's admin API."""
        return Connection(self.gateways[gateway], None, self.keys["admin"])

    async def snapshot(self, gateway: int = 0) -> dict[str, Any]:
        """What a gateway serves from."""
        async with AdminClient(self.admin(gateway)) as api:
            shown: dict[str, Any] = await api.get("snapshot")
        return shown

    async def until(
        self, true: Callable[[dict[str, Any]], bool], what: str, within_s: float = CHANGE_TIMEOUT_S
    ) -> None:
        """Wait until every gateway's snapshot shows `what`."""
        deadline_s = time.monotonic() + within_s
        for gateway in range(len(self.gateways)):
            while not true(await self.snapshot(gateway)):
                if time.monotonic() > deadline_s:
                    raise BenchError(
                        f"gateway {gateway} did not show {what} within {within_s:g} s; "
                        f"{self.folder}/gateway-{gateway}.log"
                    )
                await asyncio.sleep(0.05)

    async def start(self, *services: Service) -> None:
        """Start them beside each other; returns when all are ready. Raises CommandError."""
        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(self._start(service))
        except* CommandError as failures:
            raise failures.exceptions[0] from None

    async def _start(self, service: Service) -> None:
        self.services[service.name] = service
        await service.start()
        await service.ready()

    async def stop(self) -> None:
        """End all that was started."""
        await asyncio.gather(*(service.stop(STOP_S) for service in self.services.values()))


@asynccontextmanager
async def running(
    stack: Stack,
    *,
    gateways: int = 1,
    tenants: Sequence[str] = ("house",),
    environment: Mapping[str, str] | None = None,
    beside: Sequence[Service] = (),
) -> AsyncIterator[None]:
    """Start Redis, a controller and gateways, and `beside` them model servers; all end with the block.

    Raises CommandError or BenchError where something cannot start.
    """
    async with AsyncExitStack() as exits:
        exits.push_async_callback(stack.stop)
        password, port = secrets.token_urlsafe(16), free_port()
        await stack.start(
            redis_service(require_redis(), stack.folder, port, password, stack.folder / "redis.log")
        )
        stack.redis_url = redis_url(port, password)
        stack.keys = await _first_objects(stack.redis_url, tenants)
        settings = _settings(stack.redis_url, gateways) | dict(environment or {})
        ports = [free_port() for _ in range(gateways)]
        stack.gateways = [f"http://127.0.0.1:{port}" for port in ports]
        await stack.start(
            *beside,
            _command("controller", stack.folder, settings, "controller"),
            *(
                _command(f"gateway-{n}", stack.folder, settings, "gateway", "--port", str(port), root=root)
                for n, (port, root) in enumerate(zip(ports, stack.gateways, strict=True))
            ),
        )
        yield


def _command(
    name: str, folder: Path, environment: Mapping[str, str], *words: str, root: str | None = None
) -> CommandService:
    command: Sequence[str] = [sys.executable, "-m", "enginehouse", *words]
    probe = None if root is None else http_probe(f"{root}/readyz")
    return CommandService(name, command, folder / f"{name}.log", environment, probe)


def _settings(url: str, gateways: int) -> dict[str, str]:
    return {
        "ENGINEHOUSE_REGISTRY__REDIS_URL": url,
        "ENGINEHOUSE_GATEWAY__HOST": "127.0.0.1",
        "ENGINEHOUSE_GATEWAY__WORKERS": "1",
        "ENGINEHOUSE_GATEWAY__DRAIN_TIMEOUT_S": "2",
        "ENGINEHOUSE_SLICES__EXPECTED_WORKERS": str(gateways),
    }


async def _first_objects(url: str, tenants: Sequence[str]) -> dict[str, str]:
    """Tenants and keys, written to Redis itself; the keys in clear."""
    keys: dict[str, str] = {}
    objects: list[Stored] = []
    for name in (*tenants, "admin"):
        keys[name], digest = new_key()
        objects += [
            Tenant(name=name),
            ApiKey(name=name, tenant=name, sha256=digest, admin=name == "admin"),
        ]
    config = RegistryConfig(redis_url=url)
    redis = connect(config)
    try:
        await RegistryStore.of(redis, config).apply(objects)
    finally:
        await redis.aclose()
    return keys
