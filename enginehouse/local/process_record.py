"""ProcessRecord: which processes belong to a local stack, remembered on disk.

A process is known by its pid *and* the time it started, so that a recycled pid is never mistaken for ours.
Every recorded process leads a session of its own; what it starts, in whatever process group, ends with it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enginehouse.local.state_dir import STATE_DIR_ENV, write_private
from telemetry.process_stat import ProcessStat, all_stats, boot_id, signal_each, stat_of, wait_gone

TERM_GRACE_S = 5.0
SHM = Path("/dev/shm")  # noqa: S108 - shared memory of Triton's Python backend lives here, whatever TMPDIR says


@dataclass(frozen=True, slots=True)
class RecordedProcess:
    """One process that leads a session."""

    name: str
    pid: int
    start_ticks: int
    """Clock ticks after boot at which it started (`/proc/<pid>/stat`, field 22)."""


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
                "boot_id": boot_id(),
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


def end_session(leader: int) -> None:
    """Kill what is left of the session of a leader that this process has just reaped; wait until it is gone.

    Blocks for the milliseconds that the kernel takes to end a killed process.
    """
    left = [stat for stat in all_stats() if stat.session == leader]
    signal_each(left, signal.SIGKILL)
    wait_gone(left, TERM_GRACE_S)


def free_shm(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Remove the shared-memory regions whose names begin with one of `prefixes`; returns their names."""
    regions = [item for prefix in prefixes if prefix for item in SHM.glob(f"{prefix}*")]
    for region in regions:
        region.unlink(missing_ok=True)
    return tuple(region.name for region in regions)


def _members(process: RecordedProcess, state_dir: Path) -> list[ProcessStat]:
    session = [stat for stat in all_stats() if stat.session == process.pid]
    leader = next((stat for stat in session if stat.pid == process.pid), None)
    if leader is not None:
        return session if leader.start_ticks == process.start_ticks else []
    return [stat for stat in session if _belongs_to(stat.pid, state_dir)]


def _belongs_to(pid: int, state_dir: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return f"{STATE_DIR_ENV}={state_dir}".encode() in environment


def _end(members: list[ProcessStat], grace_s: float) -> None:
    """Ask the leaders, which end what they started; then kill whatever is left."""
    leaders = [member for member in members if member.pid == member.session]
    signal_each(leaders, signal.SIGTERM)
    wait_gone(leaders, grace_s)
    signal_each(members, signal.SIGKILL)
    wait_gone(members, TERM_GRACE_S)


def _same_boot(record: Mapping[str, Any]) -> bool:
    return bool(record["boot_id"] == boot_id())
