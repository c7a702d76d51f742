"""Fleet: Redis, a real Triton with four engines, the controller, and three gateways that share the Redis.

Every process is a session of its own and is ended by its pid when the block ends, however it ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.build import BenchError
from bench.live_router.engines import (
    BLOCK_TOKENS,
    CARD,
    CONTEXT_LENGTH,
    ENGINES,
    TOKENIZER,
    engine_name,
    fault_file,
    repository,
)
from bench.processes import cpu_s, tree
from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.local.model_servers import http_probe, weights_folder
from enginehouse.local.ports import free_port
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.service import CommandService, Service
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from enginehouse.manifests import ManifestFile, apply_files
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import ApiKey, Tenant
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from tenancy.keys import new_key

GATEWAYS = 3
MODEL = "m"
TENANTS = ("house", "victim", "flood")
STOP_S = 8.0
CHANGE_TIMEOUT_S = 15.0
Manifest = dict[str, Any]


class Fleet:
    """What runs, and the calls that change it."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.session = session
        self.gateways: list[str] = []
        """Roots of their URLs."""
        self.keys: dict[str, str] = {}
        """Keys in clear, by tenant; `admin` for the admin API."""
        self.services: dict[str, Service] = {}
        self.triton: TritonProcess | None = None

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each kind of process has used until now."""
        used: dict[str, float] = {}
        for name, service in self.services.items():
            if service.pid is not None:
                kind = name.rstrip("-0123456789")
                used[kind] = used.get(kind, 0.0) + cpu_s(tree(service.pid))
        return used

    async def apply(self, *manifests: Manifest, gateway: int = 0) -> None:
        """As `enginehouse apply` does; returns when every gateway serves from it."""
        text = yaml.safe_dump_all([{"apiVersion": "enginehouse/v1", **one} for one in manifests])
        await apply_files(self._admin(gateway), [ManifestFile("live.yaml", text)], dry_run=False)
        version = (await self._snapshot(gateway))["version"]
        await self._until(lambda shown: shown["version"] >= version, "the change")

    async def serve(self, profile: Mapping[str, Any], slots: int = CARD.slots) -> None:
        """Give the endpoints a profile and a number of slots; returns when every gateway has taken them."""
        await self.apply(
            {"kind": "Profile", "metadata": {"name": "balanced"}, "spec": dict(profile)},
            *(self.deployment(number, slots) for number in range(ENGINES)),
        )

        def taken(shown: dict[str, Any]) -> bool:
            ready = [one for one in shown["endpoints"] if one["state"] == "ready"]
            return len(ready) == ENGINES and all(one["max_concurrency"] == slots for one in ready)

        await self._until(taken, f"{ENGINES} endpoints of {slots} slots")

    def deployment(self, number: int, slots: int, profile: str = "balanced") -> Manifest:
        """One engine's."""
        assert self.triton is not None
        server = {
            "http": self.triton.http_url,
            "grpc": self.triton.grpc_url,
            "metrics": self.triton.metrics_url,
        }
        spec = {"model": MODEL, "profile": profile, "target": engine_name(number), "servers": [server]}
        return {
            "kind": "Deployment",
            "metadata": {"name": f"e{number}"},
            "spec": {**spec, "max_concurrency": slots, "tokens_per_block": BLOCK_TOKENS},
        }

    def fault(self, engine: int, fault: str | None) -> None:
        """Switch an engine's fault on or off (`emulator.engine.faults`)."""
        draft = self.folder / "fault.tmp"
        draft.write_text(json.dumps({"fault": fault}))
        draft.replace(fault_file(self.folder, engine))

    async def engine_requests(self) -> dict[str, int]:
        """What each engine says of itself: requests that it has accepted and not ended."""
        assert self.triton is not None
        async with self.session.get(self.triton.metrics_url) as answer:
            lines = (await answer.text()).splitlines()
        found = {}
        for line in lines:
            if line.startswith("nv_trt_llm_request_metrics{") and 'request_type="active"' in line:
                found[line.split('model="')[1].split('"')[0]] = int(float(line.rsplit(" ", 1)[1]))
        if len(found) != ENGINES:
            raise BenchError(f"the metrics of Triton tell of {len(found)} engines, not of {ENGINES}")
        return found

    def times_left(self) -> int:
        """How often gateways have left an endpoint alone, by their logs."""
        logs = (self.folder / f"gateway-{number}.log" for number in range(GATEWAYS))
        return sum(log.read_text(errors="replace").count("endpoint left alone") for log in logs)

    def _admin(self, gateway: int) -> Connection:
        return Connection(self.gateways[gateway], None, self.keys["admin"])

    async def _snapshot(self, gateway: int) -> dict[str, Any]:
        async with AdminClient(self._admin(gateway)) as api:
            shown: dict[str, Any] = await api.get("snapshot")
        return shown

    async def _until(self, true: Any, what: str) -> None:
        """Wait until every gateway's snapshot shows `what`."""
        deadline_s = time.monotonic() + CHANGE_TIMEOUT_S
        for gateway in range(GATEWAYS):
            while not true(await self._snapshot(gateway)):
                if time.monotonic() > deadline_s:
                    raise BenchError(
                        f"gateway {gateway} did not show {what} within {CHANGE_TIMEOUT_S:g} s; "
                        f"{self.folder}/gateway-{gateway}.log"
                    )
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Everything, ready, until the block ends. Raises CommandError or BenchError where it cannot start."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        running = Fleet(folder, session)
        stack.push_async_callback(_stop, running.services)
        password, port = secrets.token_urlsafe(16), free_port()
        redis = redis_service(require_redis(), folder, port, password, folder / "redis.log")
        await _start(running, redis)
        url = redis_url(port, password)
        running.keys = await _first_objects(url)
        running.triton = TritonProcess(
            "triton",
            await ensure_environment(),
            folder / "repository",
            folder / "triton.log",
            load=await asyncio.to_thread(repository, folder),
        )
        environment = _environment(url)
        ports = [free_port() for _ in range(GATEWAYS)]
        running.gateways = [f"http://127.0.0.1:{port}" for port in ports]
        controller = _command("controller", folder, environment, "controller")
        gateways = [
            _command(f"gateway-{n}", folder, environment, "gateway", "--port", str(port), root=root)
            for n, (port, root) in enumerate(zip(ports, running.gateways, strict=True))
        ]
        services: list[Service] = [running.triton, controller, *gateways]
        try:
            async with asyncio.TaskGroup() as group:
                for service in services:
                    group.create_task(_start(running, service))
        except* CommandError as failures:
            raise failures.exceptions[0] from None
        model = {"context_length": CONTEXT_LENGTH, "tokenizer": str(weights_folder(TOKENIZER))}
        await running.apply({"kind": "Model", "metadata": {"name": MODEL}, "spec": model})
        await running.serve({})
        yield running


async def _start(running: Fleet, service: Service) -> None:
    running.services[service.name] = service
    await service.start()
    await service.ready()


async def _stop(services: Mapping[str, Service]) -> None:
    await asyncio.gather(*(service.stop(STOP_S) for service in services.values()))


def _command(
    name: str, folder: Path, environment: Mapping[str, str], *words: str, root: str | None = None
) -> CommandService:
    command: Sequence[str] = [sys.executable, "-m", "enginehouse", *words]
    probe = None if root is None else http_probe(f"{root}/readyz")
    return CommandService(name, command, folder / f"{name}.log", environment, probe)


def _environment(url: str) -> dict[str, str]:
    return {
        "ENGINEHOUSE_REGISTRY__REDIS_URL": url,
        "ENGINEHOUSE_GATEWAY__HOST": "127.0.0.1",
        "ENGINEHOUSE_GATEWAY__WORKERS": "1",
        "ENGINEHOUSE_GATEWAY__DRAIN_TIMEOUT_S": "2",
        "ENGINEHOUSE_SLICES__EXPECTED_WORKERS": str(GATEWAYS),
        "ENGINEHOUSE_ROUTER__CACHE_TOKENS": str(CARD.kv_tokens),
    }


async def _first_objects(url: str) -> dict[str, str]:
    """Tenants and keys, written to Redis itself; the keys in clear."""
    keys: dict[str, str] = {}
    objects: list[Stored] = []
    for name in (*TENANTS, "admin"):
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
