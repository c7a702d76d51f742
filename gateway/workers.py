"""Workers: the processes that share one port, and the supervisor that keeps them running.

The supervisor serves nothing. It holds the port by a bound socket that never listens, starts the workers,
starts a dead one again, and passes on the request to end. It keeps no state a worker would miss.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from gateway.worker_seat import WORKER_VARIABLE, WorkerSeat, reusable_socket

_logger = logging.getLogger(__name__)

EXIT_NO_RESTART: Final = os.EX_CONFIG
"""A worker that exits with this code cannot run as it is configured; starting it again would not help."""
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_STEADY_AFTER_S: Final = 10.0
_MAX_EARLY_ENDS: Final = 5
_FIRST_DELAY_S: Final = 0.1
_MAX_DELAY_S: Final = 5.0


class WorkersError(Exception):
    """The workers cannot run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class WorkersPlan:
    """Which workers to run."""

    command: Sequence[str]
    """Program and arguments of one worker; it calls `WorkerSeat.take`, then `report_ready`."""
    count: int
    host: str
    port: int
    """0: any free one."""
    environment: Mapping[str, str]
    """Environment of the workers."""
    drain_deadline_s: float
    """How long workers may take to finish their requests."""
    kill_after_s: float = 5.0
    """How long past that they may take to end; then they are killed."""
    metrics_dir: Path | None = None
    """Folder through which the workers share their metrics; emptied at the start."""


def run_workers(plan: WorkersPlan, on_ready: Callable[[int], object] | None = None) -> None:
    """Run the workers until SIGTERM or SIGINT, then let them drain.

    `on_ready` is called once, with the port, when all of them listen. Raises WorkersError when the port is
    taken or a worker keeps dying before it listens; no worker is left then.
    """
    with reserve_port(plan.host, plan.port) as reserved:
        asyncio.run(Workers(plan, reserved.getsockname()[1], on_ready).run())


def reserve_port(host: str, port: int) -> socket.socket:
    """Bind the port for workers to share; WorkersError when something else listens on it."""
    try:
        if port:
            _refuse_listener(host, port)
        return reusable_socket(host, port)
    except socket.gaierror as error:
        raise WorkersError(f"host {host!r} is not an address of this machine: {error.strerror}") from error
    except OSError as error:
        raise WorkersError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses it or choose another port"
        ) from error


def _refuse_listener(host: str, port: int) -> None:
    """Fail where another gateway listens: with SO_REUSEPORT alone both would share the port unnoticed."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    with socket.create_server((host, port), family=family):
        pass


class Workers:
    """The running workers of one supervisor."""

    def __init__(self, plan: WorkersPlan, port: int, on_ready: Callable[[int], object] | None) -> None:
        self._plan = plan
        self._port = port
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._waiting_for = set(range(plan.count))

    async def run(self) -> None:
        """See `run_workers`."""
        self._prepare_metrics()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_requested)
        keepers = [loop.create_task(self._keep(index)) for index in range(self._plan.count)]
        stop = loop.create_task(self._stop.wait())
        await asyncio.wait([stop, *keepers], return_when=asyncio.FIRST_COMPLETED)
        failed = [keeper for keeper in keepers if keeper.done()]
        await self._end(keepers)
        stop.cancel()
        for keeper in failed:
            keeper.result()

    async def _keep(self, index: int) -> None:
        """Run worker `index`, again and again, until the end.

        Raises WorkersError for one that never came to listen. One that has is started again for ever: what
        ends it may pass, and the others serve meanwhile.
        """
        early_ends, delay_s = 0, _FIRST_DELAY_S
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            started_s = loop.time()
            code = await self._run_once(index)
            if self._stop.is_set():
                return
            steady = loop.time() - started_s >= _STEADY_AFTER_S
            early_ends, delay_s = (0, _FIRST_DELAY_S) if steady else (early_ends + 1, delay_s)
            if index in self._waiting_for:
                _refuse_crash_loop(index, code, early_ends)
            _logger.warning(
                "worker ended; it starts again",
                extra={"worker": index, "reason": describe_exit(code), "delay_s": delay_s},
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_DELAY_S)

    async def _run_once(self, index: int) -> int:
        """Start worker `index` and return its exit code."""
        read_fd, write_fd = os.pipe()
        loop = asyncio.get_running_loop()
        try:
            process = await self._spawn(index, write_fd)
            loop.add_reader(read_fd, self._reported, index, read_fd)
            return await self._until_ended(index, process)
        finally:
            loop.remove_reader(read_fd)
            os.close(read_fd)

    async def _until_ended(self, index: int, process: asyncio.subprocess.Process) -> int:
        self._processes[index] = process
        _logger.info("worker started", extra={"worker": index, "worker_pid": process.pid})
        try:
            if self._stop.is_set():
                process.terminate()
            return await process.wait()
        finally:
            del self._processes[index]
            if self._plan.metrics_dir is not None:
                mark_process_dead(process.pid, str(self._plan.metrics_dir))  # type: ignore[no-untyped-call]

    async def _spawn(self, index: int, ready_fd: int) -> asyncio.subprocess.Process:
        """Start the process; it alone then holds `ready_fd`."""
        seat = WorkerSeat(index, self._plan.host, self._port, os.getpid(), ready_fd)
        environment = {**self._plan.environment, WORKER_VARIABLE: seat.as_variable()}
        if self._plan.metrics_dir is not None:
            environment[METRICS_VARIABLE] = str(self._plan.metrics_dir)
        try:
            return await asyncio.create_subprocess_exec(
                *self._plan.command,
                env=environment,
                pass_fds=(ready_fd,),
                # A Ctrl-C in the terminal reaches the supervisor alone, which then asks every worker once.
                process_group=0,
            )
        except OSError as error:
            raise WorkersError(f"cannot start {self._plan.command[0]}: {error.strerror}") from error
        finally:
            os.close(ready_fd)

    def _reported(self, index: int, read_fd: int) -> None:
        """The worker wrote that it listens, or it died and its end of the pipe is closed."""
        said = os.read(read_fd, 1)
        asyncio.get_running_loop().remove_reader(read_fd)
        if not said or index not in self._waiting_for:
            return
        self._waiting_for.discard(index)
        if not self._waiting_for:
            _logger.info("all workers listen", extra={"workers": self._plan.count, "port": self._port})
            if self._on_ready is not None:
                self._on_ready(self._port)

    def _end_requested(self) -> None:
        """First signal: drain. Each further one is passed on, which makes workers cut what still runs."""
        self._stop.set()
        self._signal_all(signal.SIGTERM)

    async def _end(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        """Have every worker drain; kill what is left past the deadline."""
        if not self._stop.is_set():
            self._end_requested()
        for index, keeper in enumerate(keepers):
            if index not in self._processes:
                keeper.cancel()
        _, late = await asyncio.wait(keepers, timeout=self._plan.drain_deadline_s + self._plan.kill_after_s)
        if late:
            _logger.error("workers killed: they did not end in time", extra={"workers": len(late)})
            self._signal_all(signal.SIGKILL)
            await asyncio.wait(late)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _prepare_metrics(self) -> None:
        if self._plan.metrics_dir is not None:
            self._plan.metrics_dir.mkdir(parents=True, exist_ok=True)
            for left_over in self._plan.metrics_dir.glob("*.db"):
                left_over.unlink()


def _refuse_crash_loop(index: int, code: int, early_ends: int) -> None:
    if code == EXIT_NO_RESTART:
        raise WorkersError(f"worker {index} cannot run as configured; its own message is above")
    if early_ends >= _MAX_EARLY_ENDS:
        raise WorkersError(
            f"worker {index} ended {early_ends} times in a row within {_STEADY_AFTER_S:.0f} s of its start "
            f"(last: {describe_exit(code)}); its own messages are above"
        )


def describe_exit(code: int) -> str:
    """An exit code in words; negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
