"""Program: one process group that a step starts, read, watched, and never left behind.

A shell leads the group and holds a pipe from this process: should this one end in any way, SIGKILL included,
the pipe closes and the whole group is killed. So no compiler goes on using GPUs for a builder that is gone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICK_S = 0.1
_CHUNK = 64 * 1024
_LEADER = """
exec 3<&0 </dev/null 4>&2 2>/dev/null
trap : TERM
(read -r _ <&3; kill -KILL 0) &
guard=$!
(exec "$@" 3<&- 2>&4 4>&-)
status=$?
kill -KILL "$guard"
exit "$status"
"""
"""Waits for the program also after SIGTERM, which goes to the whole group, and says nothing itself."""


def run_program(
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    on_output: Callable[[bytes], None],
    watch: Callable[[], None],
    grace_s: float,
) -> int:
    """Run `argv` in `folder` to its end; returns the exit status, as shells tell it (128 + signal).

    `watch` is called every tenth of a second or more often; when it raises, the program gets SIGTERM, after
    `grace_s` SIGKILL, and the error goes on. What the program itself has left running ends with it.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", _LEADER, "sh", *argv],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        output = _Output(process.stdout.fileno(), on_output)
        try:
            while not _ended(process.pid):
                output.read(TICK_S)
                watch()
        except BaseException:
            _signal_group(process.pid, signal.SIGTERM)
            deadline_s = time.monotonic() + grace_s
            while not _ended(process.pid) and time.monotonic() < deadline_s:
                output.read(TICK_S)
            raise
        finally:
            _kill_session(process.pid)
            output.drain()
        status = process.wait()
        return status if status >= 0 else 128 - status
    finally:
        process.wait()
        process.stdin.close()
        process.stdout.close()


class _Output:
    def __init__(self, fd: int, on_output: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._on_output = on_output
        self._open = True

    def read(self, within_s: float) -> None:
        """What is written within that time, at most one chunk."""
        if not self._open:
            time.sleep(within_s)
            return
        ready, _, _ = select.select([self._fd], [], [], within_s)
        if ready:
            data = os.read(self._fd, _CHUNK)
            self._open = bool(data)
            if data:
                self._on_output(data)

    def drain(self) -> None:
        """What is there already; all who could write are gone."""
        while self._open and select.select([self._fd], [], [], 0)[0]:
            self.read(0)


def _ended(pid: int) -> bool:
    """Without reaping it: as long as the leader is not reaped, its group's and session's id is its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _kill_session(leader: int) -> None:
    """All of the group, and those that have made groups of their own, as the ranks of `mpirun` do."""
    _signal_group(leader, signal.SIGKILL)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                os.kill(int(entry.parent.name), signal.SIGKILL)
