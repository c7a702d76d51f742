"""The gateway as it is measured: one worker with keys, routing, traces and metrics on, in front of the stub.

A private Redis and a controller run beside it on the load's core and are kept for the whole benchmark; the
gateway is started anew for every repetition.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import bodies
from bench.build import BenchError
from bench.processes import Cores, Process
from bench.tokenizer import CONTEXT_LENGTH
from enginehouse.local.redis import find_redis
from model_registry.config import RegistryConfig
from model_registry.connection import connect
from model_registry.entities import Deployment, Model, ServerRef
from model_registry.snapshot import Stored
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant

CHAT_MODEL = "stub"
"""Served by the stub's OpenAI API."""
TRITON_MODEL = "tensorrt_llm"
"""Served by the stub's, or a real, Triton."""
MAX_CONCURRENCY = 4096
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers."""

    port: int
    headers: tuple[str, ...]
    pids: tuple[int, ...]
    beside: dict[str, tuple[int, ...]]


class House:
    """Redis, registry and controller; `gateway` runs one gateway on them. Starts when first used."""

    def __init__(
        self,
        cores: Cores,
        folder: Path,
        objects: list[Stored],
        sample_ratio: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings`: further environment of the gateway."""
        self._cores = cores
        self._folder = folder
        self._key = f"eh-bench-{secrets.token_urlsafe(24)}"
        self._objects = [*objects, *_customer(self._key)]
        self._sample_ratio = sample_ratio
        self._settings = settings or {}
        self._redis: Process | None = None
        self._controller: Process | None = None
        self._environment: dict[str, str] = {}

    @contextmanager
    def gateway(
        self, model: str, serving: Callable[[int, str, str], bool] | None = None
    ) -> Iterator[Running]:
        """One gateway until the block ends; yields once it serves `model`, by `serving` if not by chat."""
        self._open()
        port = free_port()
        command = [*ENGINEHOUSE, "gateway", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        environment = {**self._environment, **self._settings}
        process = Process(command, self._cores.subject, self._folder / "gateway.log", environment)
        try:
            process.wait_until(lambda: (serving or serves)(port, model, self._key), READY_TIMEOUT_S)
            pids = tuple(process.tree())
            yield Running(port, (f"Authorization: Bearer {self._key}",), pids, self._beside())
        finally:
            process.stop()

    def close(self) -> None:
        """End what was started. Harmless when nothing was."""
        for process in (self._controller, self._redis):
            if process is not None:
                process.stop()
        self._controller = self._redis = None

    def _open(self) -> None:
        if self._redis is not None:
            return
        port = free_port()
        self._environment = {
            "ENGINEHOUSE_REGISTRY__REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "ENGINEHOUSE_TELEMETRY__EXPORTER": "file",
            "ENGINEHOUSE_TELEMETRY__TRACE_FILE": str(self._folder / "traces.jsonl"),
        }
        if self._sample_ratio is not None:
            self._environment["ENGINEHOUSE_TELEMETRY__SAMPLE_RATIO"] = str(self._sample_ratio)
        self._redis = Process(_redis_command(port), self._cores.load, self._folder / "redis.log")
        self._redis.wait_until(lambda: _accepts(port), READY_TIMEOUT_S)
        asyncio.run(_apply(self._environment["ENGINEHOUSE_REGISTRY__REDIS_URL"], self._objects))
        self._controller = Process(
            [*ENGINEHOUSE, "controller"], self._cores.load, self._folder / "controller.log", self._environment
        )

    def _beside(self) -> dict[str, tuple[int, ...]]:
        processes = {"redis": self._redis, "controller": self._controller}
        return {name: tuple(process.tree()) for name, process in processes.items() if process is not None}


ENGINEHOUSE = (sys.executable, "-m", "enginehouse")


def openai_objects(url: str) -> list[Stored]:
    """The stub as an OpenAI-HTTP upstream."""
    model = Model(name=CHAT_MODEL, context_length=CONTEXT_LENGTH)
    return [model, _deployment(CHAT_MODEL, ServerRef(http=url), lane="openai-http")]


def triton_objects(
    server: ServerRef, tokenizer: Path, name: str = TRITON_MODEL, **deployment: Any
) -> list[Stored]:
    """A Triton that hosts the bare `tensorrt_llm`; its lane is recognised by introspection."""
    model = Model(name=name, context_length=CONTEXT_LENGTH, tokenizer=str(tokenizer))
    return [model, _deployment(name, server, **deployment)]


def _deployment(model: str, server: ServerRef, **fields: Any) -> Deployment:
    return Deployment(name=model, model=model, servers=(server,), max_concurrency=MAX_CONCURRENCY, **fields)


def _customer(key: str) -> list[Stored]:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return [Tenant(name="bench"), ApiKey(name="bench", tenant="bench", sha256=digest)]


async def _apply(redis_url: str, objects: list[Stored]) -> None:
    config = RegistryConfig(redis_url=redis_url)
    redis = connect(config)
    try:
        await RegistryStore(redis, config.name).apply(objects)
    finally:
        await redis.aclose()


def _redis_command(port: int) -> list[str]:
    binary = find_redis()
    if binary is None:
        raise BenchError(
            "no redis-server found; `apt install redis-server` or `pip install 'enginehouse[local]'`"
        )
    return [str(binary), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def serves(port: int, model: str, key: str) -> bool:
    """Whether a one-token chat with `model` is answered with 200."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(bodies.chat(model, stream=False, tokens=1)).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            ok: bool = answer.status == 200
            return ok
    except (OSError, urllib.error.HTTPError):
        return False


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
