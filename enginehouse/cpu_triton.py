"""One Triton Inference Server with CPU engines in the foreground: `enginehouse triton`."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from enginehouse.errors import ProcessError, SettingsError
from enginehouse.local.command import card_of
from enginehouse.local.model_servers import TRITON_READY_TIMEOUT_S, server_repository
from enginehouse.local.stack import DEMO_STACK, LocalStack, ServerEntry, read_stack
from enginehouse.local.state_dir import STATE_DIR_ENV, StateDir, default_state_dir
from enginehouse.local.triton import TritonPorts, TritonProcess
from enginehouse.local.triton_environment import ensure_environment
from telemetry.lifecycle import every

LOG_PERIOD_S = 0.2


@dataclass(frozen=True, slots=True)
class TritonArguments:
    """As typed; None where nothing was said."""

    stack: Path | None
    server: str | None
    host: str
    ports: tuple[int, int, int]
    """HTTP, gRPC, metrics."""
    pacing: str
    state_dir: Path | None


def run_triton(arguments: TritonArguments) -> None:
    """Serve until SIGTERM or SIGINT. Raises CommandError when the server cannot start, or ended by itself."""
    stack = read_stack(arguments.stack) if arguments.stack else DEMO_STACK
    server = _server(stack, arguments.server)
    state = StateDir(arguments.state_dir or default_state_dir())
    state.create()
    with state.locked():
        asyncio.run(_serve(stack, server, state, arguments))


def _server(stack: LocalStack, name: str | None) -> ServerEntry:
    found = next((server for server in stack.servers if name in (None, server.name)), None)
    if found is None:
        names = ", ".join(server.name for server in stack.servers)
        raise SettingsError(f"--server: the stack has no server {name!r}", f"there are: {names}")
    return found


async def _serve(stack: LocalStack, server: ServerEntry, state: StateDir, arguments: TritonArguments) -> None:
    repository, names = server_repository(stack, server, state, card_of(arguments.pacing))
    log = state.log(server.name)
    log.unlink(missing_ok=True)
    process = TritonProcess(
        server.name,
        await ensure_environment(progress=_say),
        repository,
        log,
        load=names,
        host=arguments.host,
        ports=TritonPorts(*arguments.ports),
        environment={STATE_DIR_ENV: str(state.root)},
        progress=_say,
        ready_timeout_s=TRITON_READY_TIMEOUT_S,
    )
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    told = _Told(log)
    telling = asyncio.create_task(every(LOG_PERIOD_S, told.tell))
    try:
        await process.start()
        await _until(ended, process)
    finally:
        await process.stop()
        telling.cancel()
        told.tell()


async def _until(ended: asyncio.Event, process: TritonProcess) -> None:
    """Return when asked to end; raises ProcessError when the server ended before."""
    asked = asyncio.create_task(ended.wait())
    served = asyncio.create_task(_served(process))
    try:
        done, _ = await asyncio.wait({asked, served}, return_when=asyncio.FIRST_COMPLETED)
        if served in done:
            served.result()
    finally:
        for task in (asked, served):
            task.cancel()
        await asyncio.gather(asked, served, return_exceptions=True)


async def _served(process: TritonProcess) -> None:
    await process.ready()
    _say(f"{process.name} is ready at {process.http_url}")
    status = await process.wait()
    raise ProcessError(f"{process.name} ended with status {status}", "its log above says why; start it again")


class _Told:
    """What of the server's log is on standard output already."""

    def __init__(self, log: Path) -> None:
        self._log, self._size = log, 0

    def tell(self) -> None:
        """Write what is new."""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._size)
                text = file.read()
            self._size += len(text)
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
