"""What a killed stack leaves behind is found by pid, start time and session, and by nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable

from enginehouse.local.process_record import SHM, ProcessRecord, end_leftovers
from enginehouse.local.state_dir import StateDir
from telemetry.process_stat import stat_of

Start = Callable[[str], "subprocess.Popen[bytes]"]

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PARENT = (
    "import subprocess, sys, time;"
    f'p = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], process_group=0);'
    "print(p.pid, flush=True); time.sleep(600)"
)


def _said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.wait(timeout=10) is not None


def test_a_recorded_process_is_ended(state: StateDir, start: Start) -> None:
    """A process that outlived its stack ends, and the record with it."""
    process = start(SLEEP)
    _said(process)
    ProcessRecord(state.processes).add("engine", process.pid)
    left = end_leftovers(state.processes, state.root)
    assert left.processes == ("engine",)
    assert _ended(process)
    assert not state.processes.exists()


def test_one_that_ignores_sigterm_is_killed(state: StateDir, start: Start) -> None:
    """Asking first, insisting after the grace."""
    process = start(STUBBORN)
    _said(process)
    ProcessRecord(state.processes).add("engine", process.pid)
    end_leftovers(state.processes, state.root, grace_s=0.3)
    assert process.wait(timeout=10) == -signal.SIGKILL


def test_a_recycled_pid_is_left_alone(state: StateDir, start: Start) -> None:
    """The pid agrees, the start time does not: somebody else's process."""
    process = start(SLEEP)
    _said(process)
    ProcessRecord(state.processes).add("engine", process.pid)
    record = json.loads(state.processes.read_text())
    record["processes"][0]["start_ticks"] -= 1
    state.processes.write_text(json.dumps(record))
    assert end_leftovers(state.processes, state.root).processes == ()
    assert stat_of(process.pid) is not None


def test_children_end_with_their_session(state: StateDir, start: Start) -> None:
    """What a recorded process started ends too, also when the process itself is gone already."""
    for leader_dies_first in (False, True):
        process = start(PARENT)
        child = int(_said(process))
        ProcessRecord(state.processes).add("triton", process.pid)
        if leader_dies_first:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        end_leftovers(state.processes, state.root)
        assert stat_of(child) is None


def test_a_record_of_another_boot_names_nobody(state: StateDir, start: Start) -> None:
    """After a reboot pids and ticks begin anew; nothing recorded before can be alive."""
    process = start(SLEEP)
    _said(process)
    ProcessRecord(state.processes).add("engine", process.pid)
    record = json.loads(state.processes.read_text())
    record["boot_id"] = str(uuid.uuid4())
    state.processes.write_text(json.dumps(record))
    assert end_leftovers(state.processes, state.root).processes == ()
    assert stat_of(process.pid) is not None


def test_own_shared_memory_is_freed(state: StateDir) -> None:
    """Regions with the recorded prefix go; others stay."""
    prefix = f"enginehouse-test-{uuid.uuid4().hex}"
    ours, other = SHM / f"{prefix}-0", SHM / f"other-{uuid.uuid4().hex}"
    ours.write_bytes(b"x")
    other.write_bytes(b"x")
    try:
        ProcessRecord(state.processes).add_shm_prefix(prefix)
        left = end_leftovers(state.processes, state.root)
        assert left.shm_regions == (ours.name,)
        assert not ours.exists()
        assert other.exists()
    finally:
        ours.unlink(missing_ok=True)
        other.unlink()


def test_a_process_that_ended_is_forgotten(state: StateDir, start: Start) -> None:
    """The record holds what runs."""
    process = start(SLEEP)
    record = ProcessRecord(state.processes)
    record.add("engine", process.pid)
    assert record.pids() == {"engine": process.pid}
    record.remove(process.pid)
    assert json.loads(state.processes.read_text())["processes"] == []
