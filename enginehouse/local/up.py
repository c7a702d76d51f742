"""`up`: starts a local stack in order, says when every model answers, and ends everything it started."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

from rich.console import Console

from controller.actuators.process import end_all
from emulator.engine.pacing import Pacing
from enginehouse.connection import Connection
from enginehouse.doctor import GIB, available_memory_bytes
from enginehouse.errors import ApiError, CommandError, MachineError
from enginehouse.local import panel
from enginehouse.local.manifest import names_of, stack_manifest
from enginehouse.local.model_servers import FallbackServers, ModelServers, TritonServers
from enginehouse.local.ports import free_port, reserved_port
from enginehouse.local.process_record import TERM_GRACE_S, Leftovers, ProcessRecord, end_leftovers
from enginehouse.local.processes import (
    FrontSettings,
    builder_service,
    controller_service,
    environment,
    gateway_service,
)
from enginehouse.local.progress import Steps
from enginehouse.local.ready import describe_ready, each_answers, names_to_ask
from enginehouse.local.redis import redis_service, redis_url, require_redis
from enginehouse.local.seed import seed
from enginehouse.local.service import Service
from enginehouse.local.stack import LocalStack, needed_memory_bytes
from enginehouse.local.state_dir import StateDir, write_private
from enginehouse.local.supervisor import StackSupervisor
from enginehouse.local.triton_environment import Problem, check_triton, ensure_environment
from enginehouse.manifests import ManifestFile, apply_files
from enginehouse.objects import remove

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Stage(IntEnum):
    """Order of the processes; they end in reverse."""

    REGISTRY = 0
    MODEL_SERVERS = 1
    CONTROLLER = 2
    GATEWAY = 3


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the operator asked for."""

    stack: LocalStack
    state_dir: Path
    host: str
    port: int
    workers: int
    ready_file: Path | None = None
    fallback: bool = False
    pacing: str = "none"
    trace_ratio: float | None = None
    begun_s: float | None = None
    """Unix seconds at which the operator began to wait; None: now."""


OnReady = Callable[[Connection, LocalStack], Any]


class LocalRun:
    """One `up`, from its lock to its end. `on_ready` is awaited once every model answers."""

    def __init__(self, options: UpOptions, console: Console, on_ready: OnReady | None = None) -> None:
        self._options = options
        self._stack = options.stack
        self._console = console
        self._on_ready = on_ready
        self._state = StateDir(options.state_dir)
        self._record = ProcessRecord(self._state.processes)
        self._supervisor = StackSupervisor(self._record, self._restarted)
        self._begun_s = options.begun_s or time.time()
        self._running = False

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises CommandError when the stack cannot start."""
        self._state.create()
        with ExitStack() as held:
            held.enter_context(self._state.locked())
            self._say_leftovers(end_leftovers(self._state.processes, self._state.root))
            end_all(self._state.replicas, TERM_GRACE_S)
            self._state.ready.unlink(missing_ok=True)
            port = held.enter_context(reserved_port(self._options.host, self._options.port))
            self._check_memory()
            async with self._ended_at_signals():
                await self._serve(port)

    async def _serve(self, port: int) -> None:
        with Steps(self._console) as steps:
            connection, ready = await self._start(port, steps)
        panel.show(self._console, ready, self._profiles(), time.time() - self._begun_s)
        self._running = True
        if self._on_ready is not None:
            await self._on_ready(connection, self._options.stack)
        await asyncio.Event().wait()

    async def _start(self, port: int, steps: Steps) -> tuple[Connection, dict[str, Any]]:
        options, state = self._options, self._state
        keys = state.keys()
        root = own_url(options.host, port)
        connection = Connection(root, keys.api_key, keys.admin_key)
        redis_port = free_port()
        with steps.step("Redis"):
            redis = redis_service(
                require_redis(), state.redis, redis_port, keys.redis_password, state.log("redis")
            )
            await self._supervisor.start(redis, Stage.REGISTRY)
            await seed(redis_url(redis_port, keys.redis_password), keys, state.applied())
        servers = await self._model_servers(steps)
        for prefix in servers.shm_prefixes:
            self._record.add_shm_prefix(prefix)
        front = FrontSettings(options.host, port, options.workers, options.trace_ratio)
        variables = environment(state, redis_port, front)
        starting = [(service, Stage.MODEL_SERVERS) for service in servers.services]
        starting += [(controller_service(state, variables), Stage.CONTROLLER)]
        if self._stack.builder:
            starting += [(builder_service(state, variables), Stage.CONTROLLER)]
        starting += [(gateway_service(state, variables, root), Stage.GATEWAY)]
        await self._all(starting, steps)
        with steps.step("models"):
            await self._apply(connection, servers)
            await each_answers(connection, names_to_ask(self._stack))
        return connection, self._announce(connection, servers, redis_url(redis_port, keys.redis_password))

    async def _all(self, starting: list[tuple[Service, Stage]], steps: Steps) -> None:
        """Start services side by side; the first failure is the one told."""

        async def one(service: Service, stage: Stage) -> None:
            with steps.step(service.name):
                await self._supervisor.start(service, stage)

        try:
            async with asyncio.TaskGroup() as group:
                for service, stage in starting:
                    group.create_task(one(service, stage))
        except* CommandError as failures:
            raise failures.exceptions[0] from None

    async def _model_servers(self, steps: Steps) -> ModelServers:
        options = self._options
        problem = _why_no_triton(options.fallback)
        if problem is not None:
            steps.say(f"No real Triton: {problem.message}")
            steps.say(f"  To get it: {problem.remedy}")
            steps.say("  OpenAI-HTTP servers serve the same engines in its place.")
            if options.stack.adapters:
                steps.say("  They know no LoRA adapters: those are left out.")
                self._stack = options.stack.model_copy(update={"adapters": ()})
            return FallbackServers(self._stack, self._state, options.pacing)
        with steps.step("Triton environment"):
            triton = await ensure_environment(progress=steps.say)
        return TritonServers(self._stack, self._state, triton, options.pacing, lambda _text: None)

    async def _apply(self, connection: Connection, servers: ModelServers) -> None:
        """Apply the stack's manifest as `enginehouse apply` does; what an earlier run had beyond it goes."""
        path, names = self._state.manifest, names_of(self._stack)
        before = self._state.applied()
        self._state.remember_applied(before | names)
        pacing = Pacing.load(self._options.pacing)
        text = stack_manifest(self._stack, servers.placement, pacing, servers.address)
        path.write_text(text)
        await apply_files(connection, [ManifestFile(str(path), text)], dry_run=False)
        for kind, name in sorted(before - names):
            await _remove_if_there(connection, kind, name)
        self._state.remember_applied(names)

    def _announce(self, connection: Connection, servers: ModelServers, url: str) -> dict[str, Any]:
        """Tell whoever waits for the ready file."""
        ready = describe_ready(
            connection,
            self._state.keys(),
            url,
            servers,
            self._stack,
            self._state,
            self._record.pids(),
        )
        write_private(self._state.ready, ready)
        if self._options.ready_file is not None:
            write_private(self._options.ready_file, ready)
        return ready

    def _profiles(self) -> dict[str, list[str]]:
        """Model -> the profiles that it is deployed under; an adapter's are its model's."""
        profiles: dict[str, list[str]] = {model.name: [] for model in self._stack.models}
        for deployment in self._stack.deployments:
            profiles[deployment.model].append(deployment.profile)
        return profiles | {f"{adapter.model}+{adapter.name}": [] for adapter in self._stack.adapters}

    @asynccontextmanager
    async def _ended_at_signals(self) -> AsyncIterator[None]:
        """Cut the body at the first SIGINT or SIGTERM and end everything; a second one makes haste."""
        signalled = False
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def asked() -> None:
            nonlocal signalled
            if signalled:
                self._supervisor.hurry()
            elif task is not None:
                signalled = True
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked)
        try:
            yield
        except asyncio.CancelledError:
            if not signalled or task is None:
                raise
            task.uncancel()
        finally:
            await self._end()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _end(self) -> None:
        if self._running:
            self._say("Stopping; Ctrl-C again makes haste.")
        self._state.ready.unlink(missing_ok=True)
        if self._options.ready_file is not None:
            self._options.ready_file.unlink(missing_ok=True)
        await self._supervisor.stop()
        await asyncio.to_thread(end_all, self._state.replicas, TERM_GRACE_S)
        self._record.clear()
        if self._running:
            self._say("Stopped; nothing is left running.")

    def _check_memory(self) -> None:
        available = available_memory_bytes()
        needed = needed_memory_bytes(self._options.stack, self._options.workers)
        if available < needed:
            raise MachineError(
                f"this stack needs about {needed / GIB:.1f} GiB of memory and {available / GIB:.1f} are free",
                "end something, use fewer --workers, or run a smaller stack: --stack FILE",
            )

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _restarted(self, name: str, status: int) -> None:
        self._console.print(
            f"{name} ended with status {status}; starting it again (log: {self._state.log(name)})",
            markup=False,
        )

    def _say_leftovers(self, left: Leftovers) -> None:
        if left.processes:
            names = ", ".join(left.processes)
            self._say(f"Ended what an earlier run had left: {names}")


def own_url(host: str, port: int) -> str:
    """Where a gateway that listens on `host` is reached from here."""
    reached = WILDCARDS.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


async def _remove_if_there(connection: Connection, kind: str, name: str) -> None:
    """An operator may have deleted it before us."""
    try:
        await remove(connection, kind, name, cascade=True)
    except ApiError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise


def _why_no_triton(forced: bool) -> Problem | None:
    if forced:
        return Problem("--fallback asks for none", "leave --fallback out")
    return check_triton()
