"""Processes under measurement: started on a core, watched through /proc, ended by pid with their children."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.build import BenchError

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_S = 8.0
ROOT = Path(__file__).parents[1]
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: the load and its stub on one core, what is measured on another."""

    load: int
    subject: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first two cores this process may use."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise BenchError("the benchmark needs two cores: one for the load, one for what is measured")
        return cls(allowed[0], allowed[1])


class Process:
    """A child pinned to one core, in a session of its own; ended with everything that it started."""

    def __init__(
        self,
        command: Sequence[str],
        core: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        read_stdout: bool = False,
    ) -> None:
        self.command = list(command)
        self.log = log

        def pinned_and_not_outliving_us() -> None:
            os.sched_setaffinity(0, {core})
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with log.open("ab") as sink:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if read_stdout else sink,
                stderr=sink,
                env={**os.environ, **(environment or {})},
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=pinned_and_not_outliving_us,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def tree(self) -> list[int]:
        """Its pid and those of its descendants."""
        return tree(self.pid)

    def first_line(self) -> str:
        """The first line it prints; for a process started with `read_stdout`."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise BenchError(f"{self.command[0]} ended before it was ready; {self.last_words()}")
        return line

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `ready` until it is true; raises BenchError when the process ends or time is up."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self._child.poll() is not None:
                raise BenchError(
                    f"{self.command[0]} ended with {self._child.returncode}; {self.last_words()}"
                )
            if time.monotonic() > deadline:
                raise BenchError(f"{self.command[0]} was not ready in {timeout_s:.0f} s; {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        return f"{self.log}: …{self.log.read_text(errors='replace')[-800:]}"

    def stop(self) -> None:
        """TERM, then KILL whatever of its tree is left. Harmless when already over."""
        pids = self.tree()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_TIMEOUT_S)
        for pid in pids:
            if pid != self.pid or self._child.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()


def tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for known in found:
        found += children.get(known, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds the processes have used."""
    used = 0.0
    for pid in pids:
        if fields := _stat(pid):
            used += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return used


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory of the processes, in MiB."""
    total_kib = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024


def machine_busy_s() -> float:
    """Core-seconds the whole machine has been busy since it started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS_PER_S


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat after the name: state, parent, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
