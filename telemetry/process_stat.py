"""ProcessStat: the processes of this machine as Linux tells of them, each known by pid *and* start time.

A recycled pid is so never mistaken for the process that had it before.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


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
    return stat_in(text)


def stat_in(text: str) -> ProcessStat | None:
    """What a `/proc/<pid>/stat` says; None of a zombie. Raises ValueError for another text."""
    fields = text[text.rindex(")") + 2 :].split()  # the command name may hold spaces and brackets
    if fields[0] in "ZX":
        return None
    return ProcessStat(int(text.split(maxsplit=1)[0]), session=int(fields[3]), start_ticks=int(fields[19]))


def all_stats() -> list[ProcessStat]:
    """Every process there is."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [stat for pid in pids if (stat := stat_of(pid)) is not None]


def session_pids(leader: int) -> frozenset[int]:
    """The processes of a session that run."""
    return frozenset(stat.pid for stat in all_stats() if stat.session == leader)


def signal_each(processes: Iterable[ProcessStat], number: signal.Signals) -> None:
    """Send `number` to those that still run."""
    for process in processes:
        if stat_of(process.pid) == process:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


def wait_gone(processes: list[ProcessStat], timeout_s: float) -> None:
    """Wait until all have ended, at most `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while any(stat_of(process.pid) == process for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def boot_id() -> str:
    """Another one after each start of the machine; pids and start times mean nothing across it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
