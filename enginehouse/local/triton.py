"""TritonProcess: one real `tritonserver`, from its start to the end of its process group.

Runs in explicit model-control mode, so that models come and go while it serves. Shared-memory regions
carry a prefix of their own: those of a killed server can be told from everybody else's and freed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import aiohttp

from enginehouse.errors import ProcessError
from enginehouse.local.ports import free_port
from enginehouse.local.process_record import end_session, free_shm
from enginehouse.local.service import log_tail
from enginehouse.local.triton_environment import TritonEnvironment, libpython
from telemetry.process_stat import session_pids

HOST = "127.0.0.1"
ALL_ADDRESSES = "0.0.0.0"
HTTP_THREADS = 8
SHM_DEFAULT_BYTES = 1 << 20
SHM_GROWTH_BYTES = 1 << 20
POLL_S = 0.05
STUBS_PERIOD_S = 1.0
SAYS_WHY_S = 1.0
"""How long after a stub has gone Triton may take to log why; 0.3 s were seen."""
_TAKEN_OUT = re.compile(r"successfully unloaded '|failed to load '")
_log = logging.getLogger(__name__)
PORT_TRIES = 5
_ADDRESS_IN_USE = re.compile(
    r"address already in use|failed to bind|unable to (?:bind|start)|socket .* failed", re.IGNORECASE
)
_TROUBLE = re.compile(r"^[EF]\d{4} |error|exception|traceback|UNAVAILABLE|failed", re.IGNORECASE)
_BENIGN = re.compile(r"NVML|DCGM|CUDA|failed to (?:load|get).*nvml|pinned memory", re.IGNORECASE)
_ROOT = Path(__file__).resolve().parents[2]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TritonPorts:
    """Ports of one server; 0 takes any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


class TritonProcess:
    """One server over one model repository, on loopback unless `host` says otherwise.

    Keeps its ports when started again.
    `load` names the models to load at start; `ready` waits for them all. `environment` is added to the
    process's own. `progress` is told each model that became ready.
    """

    def __init__(
        self,
        name: str,
        triton: TritonEnvironment,
        repository: Path,
        log: Path,
        *,
        load: Sequence[str],
        host: str = HOST,
        ports: TritonPorts = TritonPorts(),
        environment: Mapping[str, str] | None = None,
        progress: Progress = lambda _: None,
        ready_timeout_s: float = 60.0,
    ) -> None:
        self.name = name
        self.shm_prefix = f"enginehouse_{os.getpid()}_{os.urandom(4).hex()}_"
        self._triton = triton
        self._repository = repository
        self._log = log
        self._load = tuple(load)
        self._host = host
        self._wanted = ports
        self._ports: TritonPorts | None = None
        self._environment = dict(environment or {})
        self._progress = progress
        self._ready_timeout_s = ready_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._served = False
        self._log_start = 0
        self._whole: tuple[frozenset[int], int] | None = None
        """The processes when all models were ready, and how many had been taken out by then: one that dies
        before anybody waits is missed all the same."""

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    @property
    def http_url(self) -> str:
        return f"http://{self._own_address}:{self.ports.http}"

    @property
    def grpc_url(self) -> str:
        """Host and port, as gRPC clients take them."""
        return f"{self._own_address}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self._own_address}:{self.ports.metrics}/metrics"

    @property
    def _own_address(self) -> str:
        return HOST if self._host == ALL_ADDRESSES else self._host

    @property
    def ports(self) -> TritonPorts:
        """The ports in use; ProcessError before the first start."""
        if self._ports is None:
            raise ProcessError(f"{self.name} was never started")
        return self._ports

    async def start(self) -> None:
        """Starts the server and returns at once."""
        if self._ports is None:
            self._ports = _filled(self._wanted)
        free_shm([self.shm_prefix])
        self._whole = None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(self._ports),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._process_environment(),
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Returns when every model of `load` is ready; ProcessError with the log's words otherwise."""
        tries = PORT_TRIES
        try:
            async with asyncio.timeout(self._ready_timeout_s):
                while not await self._came_up():
                    tries -= 1
                    await self._take_other_ports(tries)
        except TimeoutError as error:
            waited = f"{self.name} was not ready within {self._ready_timeout_s:g} s"
            raise ProcessError(waited, self._log_says()) from error
        self._served = True
        if self.pid is not None:
            self._whole = session_pids(self.pid), self._taken_out()

    async def wait(self) -> int:
        """Returns the server's exit status when it has ended, with its stubs gone and memory freed.

        A server that has lost one of its stubs is ended, unless a model was unloaded or failed to load.
        """
        process = self._process
        if process is None:
            raise ProcessError(f"{self.name} was never started")
        stubs, taken_out = self._whole or (session_pids(process.pid), self._taken_out())
        while process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STUBS_PERIOD_S):
                    await process.wait()
            now = session_pids(process.pid)
            if process.returncode is not None or stubs <= now:
                stubs = now
                continue
            if await self._has_taken_out_more_than(taken_out):
                stubs, taken_out = session_pids(process.pid), self._taken_out()
            elif process.returncode is None:
                # Triton goes on without the stub, calls its model ready and lets its requests hang.
                _log.warning("a model's process died; its server is ended", extra={"server": self.name})
                process.kill()
                await process.wait()
        status = process.returncode
        self._clean_up(process.pid)
        return status

    async def stop(self, grace_s: float = 8.0) -> None:
        """Asks it to end, insists after `grace_s`; no stub and no shared memory is left."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        self._clean_up(process.pid)

    def _clean_up(self, pid: int) -> None:
        end_session(pid)
        free_shm([self.shm_prefix])

    async def _came_up(self) -> bool:
        """False when the server ended; True once all models are ready."""
        waiting = set(self._load)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while self.pid is not None:
                if self._listens():
                    for model in sorted(waiting):
                        if await _answers(session, f"{self.http_url}/v2/models/{model}/ready"):
                            waiting.discard(model)
                            self._progress(f"{self.name}: {model} is ready")
                    if not waiting:
                        return True
                await asyncio.sleep(POLL_S)
        return False

    def _listens(self) -> bool:
        """By its own log, since somebody else may answer at a port that this server failed to bind."""
        return f"Started HTTPService at {self._host}:{self.ports.http}" in self._log_text()

    async def _take_other_ports(self, tries_left: int) -> None:
        """Somebody may have taken a free port between our look and the server's bind."""
        status = await self.wait()
        fixed = 0 not in (self._wanted.http, self._wanted.grpc, self._wanted.metrics)
        if self._served or fixed or tries_left == 0 or not _ADDRESS_IN_USE.search(self._log_text()):
            raise ProcessError(f"{self.name} ended with status {status} while it started", self._log_says())
        self._ports = None
        await self.start()

    def _command(self, ports: TritonPorts) -> list[str]:
        python = f"python,shm-default-byte-size={SHM_DEFAULT_BYTES}"
        return [
            str(self._triton.binary),
            f"--model-repository={self._repository}",
            f"--backend-directory={self._triton.backends}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in self._load),
            "--disable-auto-complete-config",
            f"--http-address={self._host}",
            f"--http-port={ports.http}",
            f"--http-thread-count={HTTP_THREADS}",
            f"--grpc-address={self._host}",
            f"--grpc-port={ports.grpc}",
            "--allow-metrics=true",
            f"--metrics-address={self._host}",
            f"--metrics-port={ports.metrics}",
            "--metrics-interval-ms=1000",
            "--exit-timeout-secs=3",
            f"--backend-config={python}",
            f"--backend-config=python,shm-growth-byte-size={SHM_GROWTH_BYTES}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
        ]

    def _process_environment(self) -> dict[str, str]:
        library = libpython()
        folders = [str(library.parent)] if library else []
        return {
            **os.environ,
            # Its engines run on the CPU. A GPU that it saw would lose memory to it, and be in its metrics.
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **self._environment,
            "PATH": os.pathsep.join([str(self._triton.bin), os.environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join([*folders, *_paths("LD_LIBRARY_PATH")]),
            # For the models: the stub leaves it unread, their entry points read it.
            "PYTHONPATH": str(_ROOT),
        }

    async def _has_taken_out_more_than(self, before: int) -> bool:
        """Whether Triton says soon that a stub went because of an unload or of a load that failed."""
        until_s = monotonic() + SAYS_WHY_S
        while self._taken_out() <= before:
            if monotonic() > until_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _taken_out(self) -> int:
        """Models that the server has unloaded or failed to load so far, as its repository API was told."""
        return len(_TAKEN_OUT.findall(self._log_text()))

    def _log_text(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def _log_says(self) -> str:
        """The lines of this start that speak of trouble, else its last ones."""
        lines = [
            line
            for line in self._log_text().splitlines()
            if _TROUBLE.search(line) and not _BENIGN.search(line)
        ]
        told = "\n".join(f"  {line}" for line in lines[-12:]) or log_tail(self._log)
        return f"{self._log} says:\n{told}"


def _filled(ports: TritonPorts) -> TritonPorts:
    taken: set[int] = set()
    for field in ("http", "grpc", "metrics"):
        port = getattr(ports, field)
        while port == 0 or port in taken:
            port = free_port(HOST)
        taken.add(port)
        ports = replace(ports, **{field: port})
    return ports


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _paths(variable: str) -> list[str]:
    return [path for path in os.environ.get(variable, "").split(os.pathsep) if path]
