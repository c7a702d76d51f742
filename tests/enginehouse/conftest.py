"""Fixtures of the local stack's tests: everything started here is ended by its own pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from enginehouse.local.state_dir import STATE_DIR_ENV, StateDir

DEADLINE_S = 20.0


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    """A state directory of this test alone."""
    state = StateDir(tmp_path / "state")
    state.create()
    return state


@pytest.fixture
def start(state: StateDir) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Start `python -c CODE` as the leader of a group, marked with the state directory."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            start_new_session=True,
            stdout=subprocess.PIPE,
            env={**os.environ, STATE_DIR_ENV: str(state.root)},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


Eventually = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds; fails the test after a deadline."""

    def poll(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s"
            time.sleep(0.02)

    async def wait(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(poll, condition)

    return wait
