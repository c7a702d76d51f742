"""ModelServers: the processes that hold a stack's engines, and where each deployment finds its engine.

Real Triton where this machine can run it; elsewhere the same CPU engines behind an OpenAI-HTTP server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from emulator.engine.api import EngineLimits
from emulator.triton.repository import (
    EmulatorModels,
    EncoderModels,
    EngineSpec,
    LlmApiModels,
    TextModels,
    TrtEngineModels,
    VllmModels,
    build_emulator_repository,
    under_profile,
)
from engine_builder.repository.encoders import EncoderKind
from enginehouse.errors import SettingsError
from enginehouse.local.ports import free_port
from enginehouse.local.service import CommandService, Service
from enginehouse.local.stack import DeploymentEntry, EngineEntry, LocalStack, ServerEntry
from enginehouse.local.state_dir import STATE_DIR_ENV, StateDir
from enginehouse.local.triton import TritonProcess
from enginehouse.local.triton_environment import TritonEnvironment
from inference.lora import CONFIG_FILE
from model_registry.entities import LaneName, ServerRef
from model_registry.knobs import knobs_of
from model_registry.triton_queue import TritonQueue

WEIGHTS = Path(__file__).resolve().parents[2] / "emulator" / "models"
TRITON_READY_TIMEOUT_S = 120.0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a deployment's engine is, in the registry's words."""

    server: ServerRef
    lane: LaneName | str
    target: str


class ModelServers(Protocol):
    """All model servers of a stack."""

    @property
    def services(self) -> Sequence[Service]:
        """Their processes, in the order of the stack."""

    @property
    def shm_prefixes(self) -> Sequence[str]:
        """How the names of their shared-memory regions begin."""

    @property
    def said_as(self) -> str:
        """What kind of server it is, for the panel."""

    def placement(self, deployment: DeploymentEntry) -> Placement:
        """Where to find a deployment's engine; only after the services have started.

        Of a scaled one: the first server of its pool.
        """

    def address(self, server: str) -> ServerRef:
        """Of a server that is in a pool; only after the services have started."""

    def addresses(self) -> list[dict[str, str]]:
        """`http`, `grpc` and `metrics` of every Triton; only after the services have started."""


def adapter_folder(name: str) -> Path:
    """Folder of a shipped LoRA adapter. Raises SettingsError naming those there are."""
    folder = WEIGHTS / "adapters" / name
    if not (folder / CONFIG_FILE).exists():
        shipped = ", ".join(sorted(item.parent.name for item in folder.parent.glob(f"*/{CONFIG_FILE}")))
        raise SettingsError(f"no adapter named {name!r}", f"there are: {shipped}")
    return folder


def weights_folder(weights: str) -> Path:
    """Folder of a shipped model. Raises SettingsError naming those there are."""
    folder = WEIGHTS / weights
    if not (folder / "tokenizer.json").exists():
        shipped = ", ".join(sorted(item.parent.name for item in WEIGHTS.glob("*/tokenizer.json")))
        raise SettingsError(f"no weights named {weights!r}", f"there are: {shipped}")
    return folder


class TritonServers:
    """One real `tritonserver` for each server of the stack."""

    def __init__(
        self, stack: LocalStack, state: StateDir, triton: TritonEnvironment, pacing: str, progress: Progress
    ) -> None:
        self._stack = stack
        self._processes = {
            server.name: _triton(stack, server, state, triton, pacing, progress) for server in stack.servers
        }
        self.services: Sequence[TritonProcess] = tuple(self._processes.values())
        self.shm_prefixes = [process.shm_prefix for process in self.services]
        self.said_as = "Triton Inference Server: " + ", ".join(self._processes)

    def placement(self, deployment: DeploymentEntry) -> Placement:
        server = self._stack.servers_of(deployment)[0]
        return Placement(self.address(server), deployment.lane, deployment.target)

    def address(self, server: str) -> ServerRef:
        process = self._processes[server]
        return ServerRef(http=process.http_url, grpc=process.grpc_url, metrics=process.metrics_url)

    def addresses(self) -> list[dict[str, str]]:
        return [
            {"http": process.http_url, "grpc": process.grpc_url, "metrics": process.metrics_url}
            for process in self.services
        ]


def _triton(
    stack: LocalStack,
    server: ServerEntry,
    state: StateDir,
    triton: TritonEnvironment,
    pacing: str,
    progress: Progress,
) -> TritonProcess:
    repository, names = server_repository(stack, server, state, pacing)
    return TritonProcess(
        server.name,
        triton,
        repository,
        state.log(server.name),
        load=names,
        environment={STATE_DIR_ENV: str(state.root)},
        progress=progress,
        ready_timeout_s=TRITON_READY_TIMEOUT_S,
    )


def server_repository(
    stack: LocalStack, server: ServerEntry, state: StateDir, pacing: str
) -> tuple[Path, list[str]]:
    """Write a server's model repository; its folder, and the names of the models to load from the start."""
    repository = state.servers / server.name
    models = [under_profile(_models(one, pacing), triton_queue(stack, one)) for one in server.engines]
    names = build_emulator_repository(repository, models)
    later = {name for one in server.engines if not one.loaded for name in one.served_names}
    return repository, [name for name in names if name not in later]


def triton_queue(stack: LocalStack, entry: EngineEntry) -> TritonQueue:
    """What an engine's Triton is told: as the profile of its deployments has it, if they have one alone.

    What the stack itself says of the engine wins.
    """
    profiles = {one.profile for one in stack.deployments if stack.engine_of(one) is entry}
    knobs = knobs_of(profiles.pop() if len(profiles) == 1 else "balanced")
    said = {name: entry.limits[name] for name in TritonQueue.model_fields if name in entry.limits}
    return TritonQueue.model_validate({**dict(knobs.triton), **said})


def _models(entry: EngineEntry, pacing: str) -> EmulatorModels:
    if entry.runtime in ("encoder", "text-encoder"):
        kind: EncoderKind = "sentence" if entry.runtime == "encoder" else "text"
        return EncoderModels(weights_folder(entry.weights), entry.name, kind, pacing=pacing)
    engine = EngineSpec(
        weights_folder(entry.weights),
        engine_limits(entry),
        pacing=pacing,
        guided_decoding=entry.guided_decoding,
        cancellation_check_period_ms=entry.cancellation_check_period_ms,
        stats_check_period_ms=entry.stats_check_period_ms,
        script_file=entry.script_file,
    )
    if entry.runtime == "llmapi":
        return LlmApiModels(engine, entry.name)
    if entry.runtime == "vllm":
        return VllmModels(engine, entry.name)
    return TrtEngineModels(
        engine, entry.name, text=TextModels(bls_instances=4) if entry.text_models else None
    )


def engine_limits(entry: EngineEntry) -> EngineLimits:
    """What an engine was built for. Raises SettingsError."""
    limits: dict[str, Any] = dict(entry.limits)
    try:
        return EngineLimits(**limits)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"engine {entry.name}: limits cannot be used", str(error)) from error


class FallbackServers:
    """One OpenAI-HTTP server for each engine of the stack, where a real Triton cannot run."""

    def __init__(self, stack: LocalStack, state: StateDir, pacing: str) -> None:
        if stack.pools:
            raise SettingsError("this stack's pools need a real Triton", "see: enginehouse doctor")
        self._stack = stack
        self._ports: dict[tuple[str, str], int] = {}
        services = []
        for server in stack.servers:
            for engine in server.engines:
                port = self._ports[server.name, engine.name] = free_port()
                services.append(_openai_server(server.name, engine, port, pacing, state))
        self.services: Sequence[Service] = tuple(services)
        self.shm_prefixes: Sequence[str] = ()
        self.said_as = "OpenAI-HTTP servers in place of Triton"

    def placement(self, deployment: DeploymentEntry) -> Placement:
        engine = self._stack.engine_of(deployment)
        port = self._ports[self._stack.servers_of(deployment)[0], engine.name]
        return Placement(ServerRef(http=f"http://127.0.0.1:{port}"), "openai-http", engine.weights)

    def address(self, server: str) -> ServerRef:
        raise LookupError(f"{server} is in no pool")

    def addresses(self) -> list[dict[str, str]]:
        return []


def _openai_server(server: str, engine: EngineEntry, port: int, pacing: str, state: StateDir) -> Service:
    name = f"{server}-{engine.name}"
    command = [sys.executable, "-m", "emulator.openai_server", "--name", engine.weights]
    command += ["--model-dir", str(weights_folder(engine.weights)), "--port", str(port), "--pacing", pacing]
    return CommandService(name, command, state.log(name), probe=http_probe(f"http://127.0.0.1:{port}/health"))


def http_probe(url: str) -> Callable[[], Any]:
    """Asks `url` whether it answers 200."""

    async def answers() -> bool:
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    return answers
