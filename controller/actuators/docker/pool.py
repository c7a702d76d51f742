"""DockerPool: the containers of one pool, found again by their labels, whoever leads.

A container that has ended is not there any more, as far as replicas go: what its log says last goes into
ours, and it is taken away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from controller.actuators.docker.container import (
    REGISTRY_LABEL,
    REPLICA_LABEL,
    Owner,
    Present,
    container_name,
    description,
    free_gpus,
    server_of,
)
from controller.actuators.docker.errors import UNREACHABLE, DockerApiError, error_of
from controller.actuators.port import ActuatorError, Found, Listing, Running
from model_registry.entities import Deployment, ServerRef
from model_registry.pools import DockerActuator, Pool
from model_registry.replicas import Replica

if TYPE_CHECKING:
    from aiodocker import Docker

_log = logging.getLogger(__name__)

POLL_S = 0.1
CALL_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 2.0
LOG_LINES = 12


class DockerPool:
    """Implements `controller.actuators.port.Actuator`."""

    def __init__(self, pool: Pool, registry: str, fence: Callable[[], object]) -> None:
        """`registry`: its name, the mark of its containers.

        `fence` raises where this controller may not act any more; asked right before each act.
        """
        assert isinstance(pool.actuator, DockerActuator)
        self._spec = pool.actuator
        self._owner = Owner(registry, pool.name)
        self._fence = fence
        self._opened: Docker | None = None
        self._http: aiohttp.ClientSession | None = None
        self._starting: set[str] = set()
        self._choosing_gpus = asyncio.Lock()

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        """Create and run its container, or find it, and return when it answers. Raises ActuatorError."""
        self._starting.add(replica.name)
        try:
            async with asyncio.timeout(self._spec.start_timeout_s):
                present = await self._container(replica.name) or await self._create(replica, deployment)
                if present.state == "created":
                    await self._run(present)
                return Running(await self._answers(present), present.handle)
        except TimeoutError as error:
            raise ActuatorError(
                f"its container did not answer within {self._spec.start_timeout_s:g} s"
                f"{await self._last_words(replica.name)}"
            ) from error
        finally:
            self._starting.discard(replica.name)

    async def stop(
        self,
        replica: Replica,
        deployment: Deployment | None,  # noqa: ARG002 - the port's
    ) -> None:
        """Ask it to end, insist after the grace, and take it away. Raises ActuatorError."""
        while (present := await self._container(replica.name)) is not None:
            self._fence()
            if present.state != "removing":
                if not present.ended:
                    await self._stop(present)
                await self._remove(present)
            await asyncio.sleep(POLL_S)

    async def found(self) -> Listing:
        """Those that run, or are about to; takes away those that have ended. Raises ActuatorError."""
        present = await self._list(self._owner.labels)
        for one in present:
            if one.ended and one.replica not in self._starting:
                await self._take_away(one)
        return Listing([Found(one.replica, one.handle) for one in present if not one.ended])

    async def close(self) -> None:
        """Let go of connections; containers stay."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    # -- containers -------------------------------------------------------------------------------------

    async def _container(self, replica: str) -> Present | None:
        """What there is of a replica, running or not."""
        found = await self._list({**self._owner.labels, REPLICA_LABEL: replica})
        return found[0] if found else None

    async def _list(self, labels: dict[str, str]) -> list[Present]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        async with self._asked("list containers") as docker:
            found = await docker._query_json(  # noqa: SLF001 - its list() looks each of them up anew
                "containers/json",
                params={"all": "true", "filters": json.dumps({"label": wanted})},
            )
        return [Present.of(one) for one in found]

    async def _create(self, replica: Replica, deployment: Deployment) -> Present:
        name = container_name(self._owner.registry, replica.name)
        async with self._choosing_gpus:
            gpus = await self._free_gpus()
            body = description(self._spec, self._owner, replica, deployment, gpus)
            self._fence()
            try:
                async with self._asked(f"create {name}") as docker:
                    await docker.containers.create(body, name=name)
            except DockerApiError as error:
                if error.status != 409:
                    raise
                # Another controller was faster, or the name belongs to somebody else.
                if (present := await self._container(replica.name)) is None:
                    raise ActuatorError(f"{error}; remove or rename that container") from error
                return present
        present = await self._container(replica.name)
        if present is None:
            raise ActuatorError(f"{name} was removed right after it was created")
        return present

    async def _free_gpus(self) -> tuple[int, ...]:
        if not self._spec.gpus:
            return ()
        taken = {gpu for one in await self._list({REGISTRY_LABEL: self._owner.registry}) for gpu in one.gpus}
        return free_gpus(taken, self._spec.gpus)

    async def _run(self, present: Present) -> None:
        self._fence()
        try:
            async with self._asked(f"start {present.replica}") as docker:
                await docker.containers.container(present.id).start()
        except DockerApiError:
            await self._remove(present)
            raise

    async def _stop(self, present: Present) -> None:
        async with self._asked(f"stop {present.replica}", {304, 404, 409}) as docker:
            await docker.containers.container(present.id).stop(t=round(self._spec.stop_timeout_s))

    async def _remove(self, present: Present) -> None:
        async with self._asked(f"remove {present.replica}", {404, 409}) as docker:
            await docker.containers.container(present.id).delete(force=True, v=True)

    async def _take_away(self, ended: Present) -> None:
        said = await self._last_words(ended.replica)
        self._fence()
        _log.warning("a replica's container ended", extra={"replica": ended.replica, "said": said})
        await self._remove(ended)

    # -- what it says -----------------------------------------------------------------------------------

    async def _answers(self, present: Present) -> ServerRef:
        """Where it listens, once it answers over HTTP, whatever it says. Raises ActuatorError."""
        while True:
            inspected = await self._inspect(present)
            state = inspected.get("State") or {}
            if not state.get("Running") and state.get("Status") != "created":
                raise ActuatorError(
                    f"its container ended with status {state.get('ExitCode')} while it started"
                    f"{await self._last_words(present.replica)}"
                )
            server = server_of(self._spec, inspected)
            if server is not None and await self._listens(server.http):
                return server
            await asyncio.sleep(POLL_S)

    async def _inspect(self, present: Present) -> dict[str, Any]:
        try:
            async with self._asked(f"inspect {present.replica}") as docker:
                return await docker.containers.container(present.id).show()
        except DockerApiError as error:
            if error.status == 404:
                raise ActuatorError("its container was removed while it started") from error
            raise

    async def _listens(self, url: str) -> bool:
        """By an answer: Docker's proxy accepts connections before anybody listens behind it."""
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S))
        try:
            async with self._http.get(url):
                return True
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _last_words(self, replica: str) -> str:
        """The end of its log, to be put behind a sentence; empty where there is none."""
        try:
            present = await self._container(replica)
            if present is None:
                return ""
            async with self._asked(f"read the log of {replica}") as docker:
                lines = await docker.containers.container(present.id).log(
                    stdout=True, stderr=True, tail=LOG_LINES
                )
        except ActuatorError:
            return ""
        text = "\n".join(f"  {line.rstrip()}" for line in lines if line.strip())
        return f"; its log ends with:\n{text}" if text else ""

    # -- the daemon -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _asked(self, verb: str, but: frozenset[int] | set[int] = frozenset()) -> AsyncIterator[Docker]:
        """The client for one question; its errors become ours, and those of the statuses in `but` nothing."""
        docker = self._client()
        from aiodocker.exceptions import DockerError

        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + self._spec.stop_timeout_s):
                yield docker
        except DockerError as error:
            if error.status not in but:
                raise error_of(verb, error.status, str(error.message)) from error
        except TimeoutError as error:
            raise error_of(verb, UNREACHABLE, "no answer in time") from error
        except aiohttp.ClientError as error:
            raise error_of(verb, UNREACHABLE, str(error)) from error

    def _client(self) -> Docker:
        if self._opened is None:
            try:
                from aiodocker import Docker
            except ImportError as error:
                raise ActuatorError(
                    "pools of Docker containers need a package more: pip install 'enginehouse[docker]'"
                ) from error
            try:
                self._opened = Docker(self._spec.url)
            except (AssertionError, ValueError) as error:
                where = self._spec.url or "neither DOCKER_HOST nor a local socket"
                raise error_of("be reached", UNREACHABLE, f"{where}: {error}") from error
        return self._opened
