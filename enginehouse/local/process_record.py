"""ProcessRecord: which processes belong to a local stack, remembered on disk.

A process is known by its pid *and* the time it started, so that a recycled pid is never mistaken for ours.
Every recorded process leads a session of its own; what it starts, in whatever process group, ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enginehouse.local.state_dir import STATE_DIR_ENV, write_private

TERM_GRACE_S = 5.0
SHM = Path("/dev/shm")  # noqa: S108 - shared memory of Triton's Python backend lives here, whatever TMPDIR says


@dataclass(frozen=True, slots=True)
class RecordedProcess:
    """One process that leads a session."""

    name: str
    pid: int
    start_ticks: int
    """Clock ticks after boot at which it started (`/proc/<pid>/stat`, field 22)."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What `/proc/<pid>/stat` says of a process that is not yet a zombie."""

    pid: int
    session: int
    start_ticks: int


def stat_of(pid: int) -> ProcessStat | None:
    """None when there is no such process, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the command name may hold spaces and brackets
    if fields[0] in "ZX":
        return None
    return ProcessStat(pid, session=int(fields[3]), start_ticks=int(fields[19]))


class ProcessRecord:
    """The processes of one stack, written to `path` at every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._processes: dict[int, RecordedProcess] = {}
        self._shm_prefixes: set[str] = set()

    def add(self, name: str, pid: int) -> None:
        """Remember a process that has just been started; one that is already gone is not remembered."""
        if (stat := stat_of(pid)) is not None:
            self._processes[pid] = RecordedProcess(name, pid, stat.start_ticks)
            self._write()

    def remove(self, pid: int) -> None:
        """Forget a process that has ended with its session."""
        if self._processes.pop(pid, None) is not None:
            self._write()

    def add_shm_prefix(self, prefix: str) -> None:
        """Remember that shared-memory regions beginning with `prefix` are this stack's."""
        self._shm_prefixes.add(prefix)
        self._write()

    def pids(self) -> dict[str, int]:
        """Process name -> pid."""
        return {process.name: process.pid for process in self._processes.values()}

    def clear(self) -> None:
        """Everything has ended."""
        self._processes.clear()
        self._shm_prefixes.clear()
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_private(
            self._path,
            {
                "boot_id": _boot_id(),
                "processes": [asdict(process) for process in self._processes.values()],
                "shm_prefixes": sorted(self._shm_prefixes),
            },
        )


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a stack that was killed had left behind, now gone."""

    processes: tuple[str, ...] = ()
    shm_regions: tuple[str, ...] = ()


def end_leftovers(path: Path, state_dir: Path, grace_s: float = TERM_GRACE_S) -> Leftovers:
    """End the processes recorded in `path` with their sessions, and free their shared memory.

    Blocks up to `grace_s` while they end by themselves. Nothing happens to a process that merely has
    a recorded pid: its start time must agree, or, where the session's leader is gone, its environment must
    name this state directory.
    """
    if not path.exists():
        return Leftovers()
    record = json.loads(path.read_text())
    recorded = [RecordedProcess(**item) for item in record["processes"]]
    alive = [(p.name, _members(p, state_dir)) for p in recorded] if _same_boot(record) else []
    _end([member for _, members in alive for member in members], grace_s)
    regions = free_shm(record["shm_prefixes"])
    path.unlink()
    return Leftovers(tuple(name for name, members in alive if members), regions)


def session_pids(leader: int) -> frozenset[int]:
    """The processes of a session that run."""
    return frozenset(stat.pid for stat in _all_stats() if stat.session == leader)


def end_session(leader: int) -> None:
    """Kill what is left of the session of a leader that this process has just reaped; wait until it is gone.

    Blocks for the milliseconds that the kernel takes to end a killed process.
    """
    left = [stat for stat in _all_stats() if stat.session == leader]
    _signal(left, signal.SIGKILL)
    _gone(left, TERM_GRACE_S)


def free_shm(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Remove the shared-memory regions whose names begin with one of `prefixes`; returns their names."""
    regions = [item for prefix in prefixes if prefix for item in SHM.glob(f"{prefix}*")]
    for region in regions:
        region.unlink(missing_ok=True)
    return tuple(region.name for region in regions)


def _members(process: RecordedProcess, state_dir: Path) -> list[ProcessStat]:
    session = [stat for stat in _all_stats() if stat.session == process.pid]
    leader = next((stat for stat in session if stat.pid == process.pid), None)
    if leader is not None:
        return session if leader.start_ticks == process.start_ticks else []
    return [stat for stat in session if _belongs_to(stat.pid, state_dir)]


def _all_stats() -> list[ProcessStat]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [stat for pid in pids if (stat := stat_of(pid)) is not None]


def _belongs_to(pid: int, state_dir: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return f"{STATE_DIR_ENV}={state_dir}".encode() in environment


def _end(members: list[ProcessStat], grace_s: float) -> None:
    """Ask the leaders, which end what they started; then kill whatever is left."""
    leaders = [member for member in members if member.pid == member.session]
    _signal(leaders, signal.SIGTERM)
    _gone(leaders, grace_s)
    _signal(members, signal.SIGKILL)
    _gone(members, TERM_GRACE_S)


def _signal(processes: Iterable[ProcessStat], number: signal.Signals) -> None:
    for process in processes:
        if stat_of(process.pid) == process:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def _gone(processes: list[ProcessStat], timeout_s: float) -> None:
    """Wait until all have ended, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while any(stat_of(process.pid) == process for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _same_boot(record: Mapping[str, Any]) -> bool:
    return bool(record["boot_id"] == _boot_id())


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
