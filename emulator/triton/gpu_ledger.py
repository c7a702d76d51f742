"""GpuLedger: what each model of one server takes of a GPU that is not there.

Each model runs in a process of its own; they share a file, to which every change is added as a line. What a
process took is free when it gives it back or is gone; what it leaks is free when the server is.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

FILE = "EMULATOR_GPU_LEDGER"
"""Environment variable of a server: path of its ledger. Without it no memory is counted."""
TOTAL_MIB = "EMULATOR_GPU_MIB"
"""Environment variable of a server: memory of its GPU."""


class GpuOutOfMemoryError(Exception):
    """A model does not fit; in PyTorch's words, so that what reads logs finds what it looks for."""


class LedgerLine(NamedTuple):
    """One change."""

    at_s: float
    """Unix time."""
    server: int
    """Process id."""
    process: int
    model: str
    what: Literal["load", "refused", "unload", "leak"]
    mib: int
    used_mib: int
    """Of that server, after the change."""


class GpuLedger:
    """The ledger of one server; safe for use by many processes."""

    def __init__(self, path: Path, total_mib: int, server: int | None = None) -> None:
        """`server`: its process id; None: the process that started this one, as Triton starts its stubs."""
        self._path, self.total_mib = path, total_mib
        self._server = os.getppid() if server is None else server

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> GpuLedger | None:
        """The one that the server's environment names. ValueError where its size is missing or wrong."""
        if not (path := environment.get(FILE)):
            return None
        size = environment.get(TOTAL_MIB, "")
        if not size.isdigit() or int(size) < 1:
            raise ValueError(f"{TOTAL_MIB} must be a whole number of MiB beside {FILE}, got {size!r}")
        return cls(Path(path), int(size))

    def take(self, model: str, mib: int) -> None:
        """Raises GpuOutOfMemoryError, and takes nothing, where less than `mib` is free."""
        with self._locked() as file:
            used = self._used_mib(file)
            if used + mib > self.total_mib:
                self._add(file, model, "refused", mib, used)
                raise GpuOutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {mib}.00 MiB. GPU 0 has a total capacity of "
                    f"{self.total_mib}.00 MiB of which {self.total_mib - used}.00 MiB is free."
                )
            self._add(file, model, "load", mib, used + mib)

    def give_back(self, model: str, *, leaks: bool = False) -> None:
        """All that this process took for it, or nothing of it."""
        with self._locked() as file:
            used, mib = self._used_mib(file), self._held(file).get(os.getpid(), 0)
            self._add(file, model, "leak" if leaks else "unload", mib, used if leaks else used - mib)

    def used_mib(self) -> int:
        """By this server's models."""
        with self._locked() as file:
            return self._used_mib(file)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _add(
        self,
        file: IO[bytes],
        model: str,
        what: Literal["load", "refused", "unload", "leak"],
        mib: int,
        used_mib: int,
    ) -> None:
        line = LedgerLine(time.time(), self._server, os.getpid(), model, what, mib, used_mib)
        file.write(json.dumps(line._asdict()).encode() + b"\n")

    def _used_mib(self, file: IO[bytes]) -> int:
        leaked = sum(line.mib for line in self._lines(file) if line.what == "leak")
        return leaked + sum(self._held(file).values())

    def _held(self, file: IO[bytes]) -> dict[int, int]:
        """By process, those that are still there."""
        held: dict[int, int] = {}
        for line in self._lines(file):
            if line.what == "load":
                held[line.process] = held.get(line.process, 0) + line.mib
            elif line.what in {"unload", "leak"}:
                held.pop(line.process, None)
        return {process: mib for process, mib in held.items() if mib and _is_alive(process)}

    def _lines(self, file: IO[bytes]) -> list[LedgerLine]:
        file.flush()
        file.seek(0)
        return [line for line in map(_read, file) if line.server == self._server]


def read_ledger(path: Path) -> list[LedgerLine]:
    """Every change so far, of all servers that share the file."""
    return [_read(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _read(line: bytes) -> LedgerLine:
    return LedgerLine(**json.loads(line))


def _is_alive(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def leaks(fault_file: str | None) -> bool:
    """Whether a model's fault file says `leak` now (see `emulator.engine.faults`)."""
    if fault_file is None:
        return False
    try:
        return bool(json.loads(Path(fault_file).read_text(encoding="utf-8")).get("fault") == "leak")
    except (OSError, ValueError, AttributeError):
        return False
