"""Triton: replicas are models of running servers, loaded and unloaded by their repository API.

A server holds a model once, so that a replica is known by its server and what it is called there. What is
loaded already is taken over. Servers of one GPU load one model at a time, whoever asked for it.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

from controller.actuators.port import ActuatorError, Found, Listing, Running
from controller.actuators.triton_memory import ServerMemory
from controller.actuators.words import filled, words_of_server
from controller.replicas.placing import target_of
from controller.residency.pool import Memory
from inference.control import TritonControl
from inference.errors import InferenceError
from model_registry.entities import Deployment, ServerRef
from model_registry.pools import Pool, PoolServer, TritonActuator
from model_registry.replicas import Replica

POLL_S = 0.1
LIST_S = 2.0
"""A server that tells later is judged by the next look; the look at all others is held up so long."""
CONNECT_S = 0.5
"""Within less than the claim's margin a load or an unload is on its way, or it is not asked for."""
LOAD_TIMEOUT_S = 1800.0
UNLOAD_TIMEOUT_S = 120.0
RECYCLE_TIMEOUT_S = 300.0
BUSY = frozenset({"LOADING", "UNLOADING"})


class TritonPool:
    """The servers of one pool."""

    def __init__(self, pool: Pool, fence: Callable[[], int]) -> None:
        """`fence` raises where this controller may not act any more."""
        assert isinstance(pool.actuator, TritonActuator)
        self._pool = pool
        self._servers = {server.http: server for server in pool.actuator.servers}
        self._fence = fence
        self._controls: dict[str, TritonControl] = {}
        gpus = [gpu_of(server) for server in pool.actuator.servers]
        self._loading = {gpu: asyncio.Lock() for gpu in gpus}
        self._memories = {
            server.http: ServerMemory(self._control(server.http), alone=gpus.count(gpu_of(server)) == 1)
            for server in pool.actuator.servers
        }

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        """Load it, or find it loaded, and return when the server calls it ready. Raises ActuatorError."""
        server = self._servers.get(replica.place or "")
        if server is None:
            raise ActuatorError(f"{replica.place} is no server of pool {self._pool.name!r}")
        target = replica.target or target_of(deployment)
        control = self._control(server.http)
        parameters = {} if deployment.scaling is None else deployment.scaling.load
        took_mib: int | None = None
        try:
            async with self._loading[gpu_of(server)]:
                if not await self._is_loaded(control, target):
                    await self._quiet(gpu_of(server))
                    memory = self._memories[server.http]
                    before_mib = await memory.look()
                    self._fence()
                    await control.load(target, parameters, LOAD_TIMEOUT_S, connect_s=CONNECT_S)
                    declared = None if deployment.scaling is None else deployment.scaling.memory_mib
                    took_mib = await memory.loaded(target, before_mib, declared)
        except InferenceError as error:
            raise ActuatorError(f"{target!r} was not loaded on {server.http}: {error}") from error
        where = ServerRef.model_validate(server.model_dump(include=set(ServerRef.model_fields)))
        return Running(where, handle_of(server.http, target), took_mib)

    async def stop(self, replica: Replica, deployment: Deployment | None) -> None:
        """Unload it and return when it has left the server's memory. Raises ActuatorError."""
        if replica.place is None:
            return
        target = replica.target or (replica.model if deployment is None else target_of(deployment))
        control, server = self._control(replica.place), self._servers.get(replica.place)
        try:
            async with nullcontext() if server is None else self._loading[gpu_of(server)]:
                if any(one.name == target and one.state in {"READY", *BUSY} for one in await control.index()):
                    memory = self._memories.get(replica.place)
                    before_mib = None if memory is None else await memory.look()
                    self._fence()
                    await control.unload(
                        target, with_dependents=True, timeout_s=UNLOAD_TIMEOUT_S, connect_s=CONNECT_S
                    )
                    if memory is not None:
                        await memory.unloaded(target, before_mib, replica.memory_mib)
        except InferenceError as error:
            raise ActuatorError(f"{target!r} was not unloaded from {replica.place}: {error}") from error

    async def found(self) -> Listing:
        """Every model that is loaded on its servers, each of which has `LIST_S` to tell."""
        told = await asyncio.gather(*map(self._listed, self._servers))
        by_server = dict(zip(self._servers, told, strict=True))
        return Listing(
            [one for models in told if not isinstance(models, str) for one in models],
            {http: why for http, why in by_server.items() if isinstance(why, str)},
        )

    @property
    def memories(self) -> Mapping[str, Memory]:
        """By server, as last measured."""
        return {http: one.memory for http, one in self._memories.items()}

    async def recycle(self, http: str) -> None:
        """Restart a server by the pool's `recycle` and return when it is back. Raises ActuatorError."""
        assert isinstance(self._pool.actuator, TritonActuator)
        command = [filled(part, words_of_server(http)) for part in self._pool.actuator.recycle]
        self._fence()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise ActuatorError(f"{command[0]!r} cannot be run: {error}") from error
        try:
            async with asyncio.timeout(RECYCLE_TIMEOUT_S):
                _, told = await process.communicate()
                if process.returncode:
                    words = told.decode(errors="replace").strip()[-200:]
                    raise ActuatorError(f"{command[0]!r} ended with status {process.returncode}: {words}")
                while True:
                    if await self._control(http).live():
                        break
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise ActuatorError(f"{http} was not back {RECYCLE_TIMEOUT_S:g} s after its restart") from error
        finally:
            if process.returncode is None:
                process.kill()
        self._memories[http].restarted()

    async def close(self) -> None:
        """Close the connections; models stay loaded."""
        for control in self._controls.values():
            await control.close()
        self._controls.clear()

    async def _listed(self, http: str) -> list[Found] | str:
        """What one server has loaded, or why that is not known."""
        try:
            async with asyncio.timeout(LIST_S):
                index = await self._control(http).index()
        except TimeoutError:
            return f"it did not tell what it has loaded within {LIST_S:g} s"
        except InferenceError as error:
            return f"it does not tell what it has loaded: {error}"
        with suppress(TimeoutError):
            async with asyncio.timeout(LIST_S):
                await self._memories[http].look()
        loaded = sorted({one.name for one in index if one.state in {"READY", "LOADING"}})
        return [Found("", handle_of(http, name), http, name) for name in loaded]

    async def _is_loaded(self, control: TritonControl, target: str) -> bool:
        """Waits while the server is loading or unloading it, for whomever."""
        while True:
            states = {one.state for one in await control.index() if one.name == target}
            if not states & BUSY:
                return "READY" in states and await control.model_ready(target)
            await asyncio.sleep(POLL_S)

    async def _quiet(self, gpu: str) -> None:
        """Wait until no server of the GPU loads or unloads; one that does not answer loads nothing."""
        for http in [one.http for one in self._servers.values() if gpu_of(one) == gpu]:
            while True:
                if not await self._is_busy(http):
                    break
                await asyncio.sleep(POLL_S)

    async def _is_busy(self, http: str) -> bool:
        try:
            return any(one.state in BUSY for one in await self._control(http).index())
        except InferenceError:
            return False

    def _control(self, http: str) -> TritonControl:
        server = self._servers.get(http)
        ref = ServerRef(http=http, metrics=None if server is None else server.metrics)
        return self._controls.setdefault(http, TritonControl(ref))


def gpu_of(server: PoolServer) -> str:
    """What it shares with others: its `gpu`, else itself."""
    return server.gpu or server.http


def handle_of(http: str, target: str) -> str:
    """`<target>@<server's URL>`."""
    return f"{target}@{http}"
