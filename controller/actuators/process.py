"""Process: a server of its own for each replica, in a session of its own on this machine.

It outlives the controller. A later leader finds it by what its start has left on disk (`process_place`),
and ends it by pid and start time, never by name. Controllers on other machines know nothing of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from controller.actuators.port import ActuatorError, Found, Listing, Running
from controller.actuators.process_place import (
    LAUNCH,
    LOCK_FD,
    MARK,
    TOKEN,
    BusyError,
    Plan,
    ProcessPlace,
)
from controller.actuators.words import PORTS, filled, words_of
from model_registry.entities import Deployment, ServerRef
from model_registry.leadership import boot_s
from model_registry.pools import Pool, ProcessActuator
from model_registry.replicas import Replica
from telemetry.process_stat import boot_id, signal_each, wait_gone

POLL_S = 0.05
BUSY_S = 2.0
"""How long another controller is waited for that is starting or stopping the same replica."""
KILLED_S = 5.0


class ProcessPool:
    """The processes of one pool."""

    def __init__(
        self,
        pool: Pool,
        registry: str,
        folder: Path,
        environment: Mapping[str, str],
        fence: Callable[[], int],
    ) -> None:
        """`folder`: of all pools of all registries; `environment`: what servers inherit.

        `fence` raises where this controller may not act any more, and tells its claim's token.
        """
        assert isinstance(pool.actuator, ProcessActuator)
        self._pool = pool.name
        self._spec = pool.actuator
        self._registry = registry
        self._folder = folder / quote(registry, safe="") / quote(pool.name, safe="")
        self._environment = dict(environment)
        self._fence = fence
        self._children: set[int] = set()

    async def start(self, replica: Replica, deployment: Deployment) -> Running:
        """Run it, or find it running, and return when its HTTP port is open. Raises ActuatorError."""
        place = self._place(replica.name)
        deadline_s = boot_s() + self._spec.start_timeout_s
        plan = await self._present(place)
        if plan is None:
            plan = await self._launch(place, replica, deployment)
        while not await self._listens(plan.http):
            self._reap()
            if place.leader() is None:
                raise ActuatorError(f"{self._spec.command[0]} ended while it started{_said(place)}")
            if boot_s() > deadline_s:
                within = f"within {self._spec.start_timeout_s:g} s"
                raise ActuatorError(f"nothing listened on port {plan.http} {within}{_said(place)}")
            await asyncio.sleep(POLL_S)
        leader = place.leader()
        if leader is None:
            raise ActuatorError(f"{self._spec.command[0]} ended while it started{_said(place)}")
        return Running(self._server(plan), f"{socket.gethostname()}:{leader.pid}:{leader.start_ticks}")

    async def stop(
        self,
        replica: Replica,
        deployment: Deployment | None,  # noqa: ARG002 - the port's
    ) -> None:
        """Ask it to end, insist after the grace, return when its session is gone. Raises ActuatorError."""
        place = self._place(replica.name)
        if replica.handle and replica.handle.split(":")[0] != socket.gethostname():
            raise ActuatorError(
                f"it runs on {replica.handle.split(':')[0]}: a controller there has to end it, so run the "
                "controllers of a pool of processes on one machine"
            )
        if place.plan() is None:
            return
        await self._present(place)
        self._fence()
        asked = place.leader()
        if asked is not None:
            signal_each([asked], signal.SIGTERM)
            await self._until_gone(place, self._spec.stop_timeout_s, leader_only=True)
        signal_each(place.members(), signal.SIGKILL)
        if not await self._until_gone(place, KILLED_S):
            pids = ", ".join(str(stat.pid) for stat in place.members())
            raise ActuatorError(f"killed processes are still there: {pids}")
        place.forget()

    async def found(self) -> Listing:
        """Every replica of the pool that runs on this machine, or is about to."""
        self._reap()
        found: list[Found] = []
        for name in ProcessPlace.all_in(self._folder):
            leader = self._place(name).leader()
            handle = "" if leader is None else f"{socket.gethostname()}:{leader.pid}:{leader.start_ticks}"
            if handle or self._is_locked(name):
                found.append(Found(name, handle))
        return Listing(found)

    async def close(self) -> None:
        """Nothing is open; processes go on."""
        self._reap()

    # -- inner --------------------------------------------------------------------------------------------

    async def _present(self, place: ProcessPlace) -> Plan | None:
        """What runs, once whoever was starting it is done with that. Raises ActuatorError."""
        deadline_s = boot_s() + BUSY_S
        while True:
            if place.leader() is not None:
                return place.plan()
            try:
                with place.locked():
                    return None
            except FileNotFoundError:
                return None  # nothing of this pool was ever started here
            except BusyError:
                if boot_s() > deadline_s and place.leader() is None:
                    raise ActuatorError("another controller is starting or stopping it") from None
            await asyncio.sleep(POLL_S)

    async def _launch(self, place: ProcessPlace, replica: Replica, deployment: Deployment) -> Plan:
        program = shutil.which(self._spec.command[0], path=self._environment.get("PATH", os.defpath))
        if program is None:
            raise ActuatorError(f"no program {self._spec.command[0]!r}: write its whole path")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with place.locked() as lock:
                before = place.plan()
                token = self._fence()
                if before is not None and before.token > token:
                    raise ActuatorError("a later leader has started it")
                ports = self._ports()
                plan = Plan(
                    replica.deployment, token, boot_id(), ports["http_port"], *map(ports.get, PORTS[1:])
                )
                place.write(plan)
                self._spawn(place, program, words_of(replica, deployment, ports), lock)
        except BusyError:
            raise ActuatorError("another controller is starting it") from None
        deadline_s = boot_s() + BUSY_S
        while True:
            if place.leader() is not None or boot_s() > deadline_s or not self._is_locked(place.replica):
                return plan
            await asyncio.sleep(POLL_S / 10)

    def _spawn(self, place: ProcessPlace, program: str, words: Mapping[str, str], lock: int) -> None:
        arguments = [filled(word, words) for word in self._spec.command[1:]]
        given = {name: filled(value, words) for name, value in self._spec.environment.items()}
        environment = {**self._environment, **given, MARK: place.mark, TOKEN: str(self._fence())}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", LAUNCH, str(place.pid_file), program, *arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(place.log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        self._children.add(pid)

    def _ports(self) -> dict[str, int]:
        """A free one for each that the command or its environment names, and for HTTP in any case."""
        texts = [*self._spec.command, *self._spec.environment.values()]
        asked = [name for name in PORTS if any(f"{{{name}}}" in text for text in texts)]
        return {name: _free_port(self._spec.host) for name in dict.fromkeys(["http_port", *asked])}

    def _server(self, plan: Plan) -> ServerRef:
        host = f"[{self._spec.host}]" if ":" in self._spec.host else self._spec.host
        return ServerRef(
            http=f"http://{host}:{plan.http}",
            grpc=None if plan.grpc is None else f"{host}:{plan.grpc}",
            metrics=None if plan.metrics is None else f"http://{host}:{plan.metrics}/metrics",
        )

    async def _listens(self, port: int) -> bool:
        try:
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_connection(self._spec.host, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    async def _until_gone(self, place: ProcessPlace, within_s: float, *, leader_only: bool = False) -> bool:
        deadline_s = boot_s() + within_s
        while True:
            self._reap()
            if place.leader() is None and (leader_only or not place.members()):
                return True
            if boot_s() > deadline_s:
                return False
            await asyncio.sleep(POLL_S)

    def _is_locked(self, replica: str) -> bool:
        try:
            with self._place(replica).locked():
                return False
        except BusyError:
            return True

    def _place(self, replica: str) -> ProcessPlace:
        return ProcessPlace(self._folder, self._registry, self._pool, replica)

    def _reap(self) -> None:
        """Children of this process that have ended; those of an earlier controller are init's."""
        for pid in list(self._children):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self._children.discard(pid)


def end_all(folder: Path, grace_s: float) -> list[str]:
    """End every replica that any controller has started with its state in `folder`; returns their names.

    For when no controller runs any more. Blocks while they end.
    """
    places = [one for one in ProcessPlace.everywhere(folder) if one.members()]
    leaders = [leader for one in places if (leader := one.leader()) is not None]
    signal_each(leaders, signal.SIGTERM)
    wait_gone(leaders, grace_s)
    left = [stat for one in places for stat in one.members()]
    signal_each(left, signal.SIGKILL)
    wait_gone(left, KILLED_S)
    for place in ProcessPlace.everywhere(folder):
        if not place.members():
            place.forget()
    return [one.replica for one in places]


def _said(place: ProcessPlace) -> str:
    tail = place.log_tail()
    return f"; its last words: {tail}" if tail else ""


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
