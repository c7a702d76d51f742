"""Workers: the processes that share one port, and the supervisor that keeps them running.

The supervisor serves nothing. It holds the port by a bound socket that never listens, forks the workers,
forks a dead one again and tells it who has ended before, and passes on the request to end. It keeps no
state a worker would miss. What it has imported its workers need not: they serve at once and share the
memory. A process that forks must have one thread only, as a lock that another thread holds would be held
for ever in the worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from secrets import token_hex
from typing import Final

from gateway.worker_seat import WorkerSeat, reusable_socket
from telemetry.garbage import freeze_gc

_log = logging.getLogger(__name__)

EXIT_NO_RESTART: Final = os.EX_CONFIG
"""A worker that exits with this code cannot run as it is configured; starting it again would not help."""
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder through which workers share their metrics; prometheus_client reads it when imported."""

_STEADY_AFTER_S: Final = 10.0
_MAX_EARLY_ENDS: Final = 5
_FIRST_DELAY_S: Final = 0.1
_MAX_DELAY_S: Final = 5.0
_ENDED_KEPT: Final = 32
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class WorkersError(Exception):
    """The workers cannot run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class WorkersPlan:
    """Which workers to run."""

    serve: Callable[[WorkerSeat], object]
    """What a worker runs in its process; it calls `WorkerSeat.take`, then `report_ready`."""
    count: int
    host: str
    port: int
    """0: any free one."""
    drain_deadline_s: float
    """How long workers may take to finish their requests."""
    kill_after_s: float = 5.0
    """How long past that they may take to end; then they are killed."""
    metrics_dir: Path | None = None
    """The folder that `METRICS_VARIABLE` names; emptied at the start. None for a single worker."""


def run_workers(plan: WorkersPlan, on_ready: Callable[[int], object] | None = None) -> None:
    """Run the workers until SIGTERM or SIGINT, then let them drain.

    `on_ready` is called once, with the port, when all of them listen. Raises WorkersError when the port is
    taken or a worker keeps dying before it listens; no worker is left then.
    """
    with reserve_port(plan.host, plan.port) as reserved:
        freeze_gc()
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


class _Running:
    """One worker's process, and its exit code once it has ended."""

    def __init__(self, process: ForkProcess) -> None:
        self.process = process
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def look(self) -> None:
        """Take note of its end."""
        code = self.process.exitcode
        if code is not None and not self.ended.done():
            self.ended.set_result(code)


class Workers:
    """The running workers of one supervisor."""

    def __init__(self, plan: WorkersPlan, port: int, on_ready: Callable[[int], object] | None) -> None:
        self._plan = plan
        self._port = port
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._running: dict[int, _Running] = {}
        self._ended: deque[str] = deque(maxlen=_ENDED_KEPT)
        """Lives of workers, the latest last."""
        self._waiting_for = set(range(plan.count))

    async def run(self) -> None:
        """See `run_workers`."""
        self._prepare_metrics()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_requested)
        loop.add_signal_handler(signal.SIGCHLD, self._look)
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
            code: int | None = None
            try:
                code = await self._run_once(index)
                reason = describe_exit(code)
            except OSError as error:  # such as no memory to fork with
                reason = f"cannot start: {error.strerror}"
            if self._stop.is_set():
                return
            steady = loop.time() - started_s >= _STEADY_AFTER_S
            early_ends, delay_s = (0, _FIRST_DELAY_S) if steady else (early_ends + 1, delay_s)
            if index in self._waiting_for:
                _refuse_crash_loop(index, code, reason, early_ends)
            _log.warning(
                "worker ended; it starts again",
                extra={"worker": index, "reason": reason, "delay_s": delay_s},
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_DELAY_S)

    async def _run_once(self, index: int) -> int:
        """Start worker `index` and return its exit code. Raises OSError where it cannot be started."""
        read_fd, write_fd = os.pipe()
        loop, life = asyncio.get_running_loop(), token_hex(8)
        try:
            running = _Running(self._fork(index, write_fd, life))
            loop.add_reader(read_fd, self._reported, index, read_fd)
            code = await self._until_ended(index, running)
            self._ended.append(life)
            return code
        finally:
            loop.remove_reader(read_fd)
            os.close(read_fd)

    async def _until_ended(self, index: int, running: _Running) -> int:
        self._running[index] = running
        pid = running.process.pid
        _log.info("worker started", extra={"worker": index, "worker_pid": pid})
        try:
            if self._stop.is_set():
                running.process.terminate()
            return await running.ended
        finally:
            del self._running[index]
            if self._plan.metrics_dir is not None:
                # Imported here, when `METRICS_VARIABLE` is set for certain.
                from prometheus_client.multiprocess import mark_process_dead

                mark_process_dead(pid, str(self._plan.metrics_dir))  # type: ignore[no-untyped-call]

    def _fork(self, index: int, ready_fd: int, life: str) -> ForkProcess:
        """Start the process; it alone then holds `ready_fd`."""
        seat = WorkerSeat(index, self._plan.host, self._port, os.getpid(), ready_fd, life, tuple(self._ended))
        process = get_context("fork").Process(target=_work, args=(self._plan.serve, seat))
        try:
            with _signals_held_back():
                process.start()
        finally:
            os.close(ready_fd)
        return process

    def _reported(self, index: int, read_fd: int) -> None:
        """The worker wrote that it listens, or it died and its end of the pipe is closed."""
        said = os.read(read_fd, 1)
        asyncio.get_running_loop().remove_reader(read_fd)
        if not said or index not in self._waiting_for:
            return
        self._waiting_for.discard(index)
        if not self._waiting_for:
            _log.info("all workers listen", extra={"workers": self._plan.count, "port": self._port})
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
            if index not in self._running:
                keeper.cancel()
        _, late = await asyncio.wait(keepers, timeout=self._plan.drain_deadline_s + self._plan.kill_after_s)
        if late:
            _log.error("workers killed: they did not end in time", extra={"workers": len(late)})
            self._signal_all(signal.SIGKILL)
            await asyncio.wait(late)

    def _signal_all(self, number: signal.Signals) -> None:
        for running in self._running.values():
            if running.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(running.process.pid, number)

    def _look(self) -> None:
        for running in self._running.values():
            running.look()

    def _prepare_metrics(self) -> None:
        if self._plan.metrics_dir is not None:
            self._plan.metrics_dir.mkdir(parents=True, exist_ok=True)
            for left_over in self._plan.metrics_dir.glob("*.db"):
                left_over.unlink()


def _work(serve: Callable[[WorkerSeat], object], seat: WorkerSeat) -> None:
    """The worker's own process, from the fork on."""
    signal.set_wakeup_fd(-1)  # the supervisor's: it would take our signals for its own
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A Ctrl-C in the terminal reaches the supervisor alone, which then asks every worker once.
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    serve(seat)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A worker must not meet a signal while it has the supervisor's handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)


def _refuse_crash_loop(index: int, code: int | None, reason: str, early_ends: int) -> None:
    if code is None:
        raise WorkersError(f"worker {index} {reason}")
    if code == EXIT_NO_RESTART:
        raise WorkersError(f"worker {index} cannot run as configured; its own message is above")
    if early_ends >= _MAX_EARLY_ENDS:
        raise WorkersError(
            f"worker {index} ended {early_ends} times in a row within {_STEADY_AFTER_S:.0f} s of its start "
            f"(last: {reason}); its own messages are above"
        )


def describe_exit(code: int) -> str:
    """An exit code in words; negative ones are signals."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
