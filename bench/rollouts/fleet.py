"""Fleet: Redis, a real Triton, an OpenAI-HTTP server with candidates, a controller and two gateways."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.build import BenchError
from bench.rollouts.cases import (
    SLOTS,
    WEIGHTS,
    Case,
    ServerName,
    models_beside,
    triton_models,
    upstream_models,
    upstream_pacing,
)
from emulator.triton.repository import EmulatorModels, build_emulator_repository
from enginehouse.connection import Connection
from enginehouse.local.model_servers import http_probe, weights_folder
from enginehouse.local.ports import free_port
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.service import CommandService, Service
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.engines import Engine
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.rollouts import FINAL, Rollout, RolloutStatus
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.keys import new_key

GATEWAYS = 2
STOP_S = 8.0
READY_S = 30.0
POLL_S = 0.1
_EVIDENCE_S = "0.5"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Threads that spin beside other processes make an engine several times as slow."""


class Fleet:
    """What runs."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession, store: RegistryStore, key: str) -> None:
        self.folder = folder
        self.session = session
        self.store = store
        self.key = key
        self.gateways: list[str] = []
        self.services: dict[str, Service] = {}
        self.servers: dict[ServerName, ServerRef] = {}
        self.admin_key = ""
        self.environment: dict[str, str] = {}
        """Of gateways and controllers."""

    def connections(self) -> list[Connection]:
        """To each gateway's admin API."""
        return [Connection(root, None, self.admin_key) for root in self.gateways]

    async def kill(self, name: str) -> None:
        """A service and all that it started, by SIGKILL; returns when it is gone."""
        service = self.services[name]
        if service.pid is None:
            raise BenchError(f"{name} does not run, and cannot be killed")
        os.kill(service.pid, signal.SIGKILL)
        await service.wait()

    async def end(self, name: str) -> None:
        """As an operator would."""
        await self.services[name].stop(STOP_S)

    async def start_again(self, name: str) -> None:
        """At the same address; returns when it serves."""
        await _start(self.services, self.services[name])

    async def start_controller(self, name: str) -> None:
        """One more, standing by."""
        await _start(self.services, _enginehouse(name, self.folder, self.environment, "controller"))

    async def deploy(self, name: str, case: Case, engines: Mapping[str, Engine] = {}) -> str:
        """A model of its own with its stable deployment and the candidate, ready; the model's name.

        `engines`: by side, those that the deployments name.
        """
        model = f"m-{name}"
        deployed: dict[str, Any] = {"model": model, "max_concurrency": SLOTS}
        named = {side: engine.name for side, engine in engines.items()}
        await self.store.apply(
            [
                *engines.values(),
                Model(name=model, context_length=1024, tokenizer=str(weights_folder(WEIGHTS))),
                Deployment(
                    name=f"stable-{name}",
                    target="stable",
                    servers=(self.servers["triton"],),
                    engine=named.get("stable"),
                    **deployed,
                ),
                Deployment(
                    name=f"candidate-{name}",
                    target=case.target,
                    lane="openai-http" if case.server == "upstream" else "auto",
                    servers=(self.servers[case.server],),
                    weight=0,
                    engine=named.get("candidate"),
                    **deployed,
                ),
            ]
        )
        deadline_s = time.monotonic() + READY_S
        while True:
            endpoints = (await self.store.load()).endpoints.get(model, ())
            if sum(one.state == "ready" for one in endpoints) == 2:
                return model
            if time.monotonic() > deadline_s:
                reasons = [f"{one.name}: {one.state} {one.reason}" for one in endpoints]
                raise BenchError(f"{model} was not ready within {READY_S:g} s: {reasons}")
            await asyncio.sleep(POLL_S)

    async def until_over(self, rollout: Rollout, within_s: float) -> RolloutStatus:
        """Its last status; as it stands when `within_s` are over, if it is not."""
        deadline_s = time.monotonic() + within_s
        while True:
            status = (await self.store.load()).rollout_statuses.get(rollout.name)
            late = time.monotonic() > deadline_s
            if status is not None and (status.phase in FINAL or late):
                return status
            if late:
                raise BenchError(f"no controller has looked at {rollout.name} within {within_s:g} s")
            await asyncio.sleep(POLL_S)

    async def remove(self, model: str) -> None:
        """The model and all of it."""
        await self.store.delete("Model", model, cascade=True)


@asynccontextmanager
async def fleet(folder: Path, *, beside: bool = False) -> AsyncIterator[Fleet]:
    """Everything, ready, until the block ends. Raises CommandError or BenchError where it cannot start.

    `beside`: a second Triton, too.
    """
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        services: dict[str, Service] = {}
        stack.push_async_callback(_stop, services)
        password, port = secrets.token_urlsafe(16), free_port()
        redis = redis_service(require_redis(), folder, port, password, folder / "redis.log")
        await _start(services, redis)
        config = RegistryConfig(redis_url=redis_url(port, password))
        client = connect(config)
        stack.push_async_callback(client.aclose)
        key, digest = new_key()
        running = Fleet(folder, session, RegistryStore.of(client, config), key)
        running.services = services
        running.admin_key, admin = new_key()
        await running.store.apply(
            [
                Tenant(name="t"),
                ApiKey(name="k", tenant="t", sha256=digest),
                ApiKey(name="admin", tenant="t", sha256=admin, admin=True),
            ]
        )
        await _start_all(running, config.redis_url, beside=beside)
        yield running


async def _start_all(running: Fleet, url: str, *, beside: bool) -> None:
    folder = running.folder
    tritons: dict[ServerName, TritonProcess] = {
        "triton": await _triton("triton", folder, triton_models(folder))
    }
    if beside:
        tritons["beside"] = await _triton("beside", folder, models_beside(folder))
    environment = running.environment = {
        "ENGINEHOUSE_REGISTRY__REDIS_URL": url,
        "ENGINEHOUSE_GATEWAY__HOST": "127.0.0.1",
        "ENGINEHOUSE_GATEWAY__WORKERS": "1",
        "ENGINEHOUSE_GATEWAY__DRAIN_TIMEOUT_S": "2",
        "ENGINEHOUSE_SLICES__EXPECTED_WORKERS": str(GATEWAYS),
        "ENGINEHOUSE_CONTROLLER__INTERVAL_S": _EVIDENCE_S,
    }
    ports = [free_port() for _ in range(GATEWAYS)]
    running.gateways = [f"http://127.0.0.1:{port}" for port in ports]
    upstream_port = free_port()
    upstream = f"http://127.0.0.1:{upstream_port}"
    words = ["--port", str(upstream_port), "--pacing", str(upstream_pacing(folder))]
    for model, model_dir in upstream_models(folder).items():
        words += ["--name", model, "--model-dir", str(model_dir)]
    command = [sys.executable, "-m", "emulator.openai_server", *words]
    probe = http_probe(f"{upstream}/health")
    services: list[Service] = [
        *tritons.values(),
        CommandService("upstream", command, folder / "upstream.log", _ONE_THREAD, probe),
        _enginehouse("controller", folder, environment, "controller"),
        *(
            _enginehouse(f"gateway-{at}", folder, environment, "gateway", "--port", str(port), root=root)
            for at, (port, root) in enumerate(zip(ports, running.gateways, strict=True))
        ),
    ]
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(_start(running.services, service))
    running.servers = {"upstream": ServerRef(http=upstream)}
    for name, triton in tritons.items():
        running.servers[name] = ServerRef(
            http=triton.http_url, grpc=triton.grpc_url, metrics=triton.metrics_url
        )


async def _triton(name: str, folder: Path, models: Sequence[EmulatorModels]) -> TritonProcess:
    repository = folder / f"{name}-repository"
    names = await asyncio.to_thread(build_emulator_repository, repository, models)
    return TritonProcess(name, await ensure_environment(), repository, folder / f"{name}.log", load=names)


async def _start(services: dict[str, Service], service: Service) -> None:
    services[service.name] = service
    await service.start()
    await service.ready()


async def _stop(services: Mapping[str, Service]) -> None:
    await asyncio.gather(*(service.stop(STOP_S) for service in services.values()))


def _enginehouse(
    name: str, folder: Path, environment: Mapping[str, str], *words: str, root: str | None = None
) -> CommandService:
    command = [sys.executable, "-m", "enginehouse", *words]
    probe = None if root is None else http_probe(f"{root}/readyz")
    return CommandService(name, command, folder / f"{name}.log", environment, probe)
