"""Ctrl-C in the middle of a command: status 130, nothing half-written, one sentence of what is left.

Each command is held where it is in the middle by what it reads: a pipe, a file under lease, a server.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from model_registry.store import RegistryStore
from tests.command_line import begun, said_at_ctrl_c
from tests.enginehouse.test_engines_command import package, run, state
from tests.enginehouse.test_loadtest import Streams
from tests.enginehouse.test_rollout_commands import deployed
from tests.gateway.test_admin import ADMIN, Admin, admin, watcher
from tests.model_registry.conftest import config, eventually, redis_client, redis_server, store

__all__ = ["admin", "config", "package", "redis_client", "redis_server", "state", "store", "watcher"]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "command", [("replay", "--out", "{}/figures.csv", "--trace"), ("plan", "--out", "{}/plan.yaml", "-f")]
)
def test_what_only_computes_writes_nothing(tmp_path: Path, command: Sequence[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with begun(*(word.format(tmp_path) for word in command), str(pipe)) as process, pipe.open("w"):
        assert said_at_ctrl_c(process) == "stopped: nothing was written"
    assert names(tmp_path) == ["pipe"]


async def test_a_load_test_says_how_far_it_came(tmp_path: Path) -> None:
    streams = Streams()
    streams.hold = True

    async def asked_for_an_answer() -> bool:
        return streams.arrived == 1

    goals = ("--ttft", "1", "--itl", "1", "--driver", "own")
    async with streams.serving() as of:
        asked = ("loadtest", "-m", of.name, *goals, "--out", str(tmp_path / "result.json"))
        with begun(*asked) as process:
            await eventually(asked_for_an_answer)
            said = await asyncio.to_thread(said_at_ctrl_c, process)
        streams.released.set()
    assert said == "stopped: asking for the first answers; no result was written"
    assert names(tmp_path) == []


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else can open the file meanwhile: a lease.

    The kernel sends SIGIO when somebody tries, to whichever thread takes it, and that ends a process.
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)


def wait_in_open(pid: int) -> None:
    """Until a thread of the process waits to open what is held. Others may have tried before it."""
    deadline_s = monotonic() + 30
    while not any("lease" in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/wchan")):
        assert monotonic() < deadline_s, "the process has not come so far"
        sleep(0.01)


def test_an_engine_is_fetched_whole_or_not_at_all(package: Path, state: Path, tmp_path: Path) -> None:
    run(state, "publish", str(package))
    before = names(tmp_path)
    fetch = ("engines", "fetch", package.name, str(tmp_path / "served"), "--state-dir", str(state))
    with held(state / "engines" / package.name / "engine" / "config.json"), begun(*fetch) as process:
        wait_in_open(process.pid)
        begun_to_copy = set(names(tmp_path)) - set(before)
        assert said_at_ctrl_c(process).endswith("stopped: nothing was fetched")
    assert begun_to_copy
    assert names(tmp_path) == before


def test_an_engine_is_published_whole_or_not_at_all(package: Path, state: Path, tmp_path: Path) -> None:
    before = names(tmp_path)
    publish = ("engines", "publish", str(package), "--state-dir", str(state))
    with held(package / "engine" / "config.json"), begun(*publish) as process:
        wait_in_open(process.pid)
        assert said_at_ctrl_c(process) == "stopped: nothing was published"
    assert names(tmp_path) == before


async def test_a_rollout_goes_on_without_who_watches_it(admin: Admin, store: RegistryStore) -> None:
    await deployed(store, "old", "new")
    start = ("rollout", "start", "-m", "chat", "--candidate", "new", "--watch")
    with begun(*start, "--url", str(admin.make_url("/")), "--key", ADMIN) as process:
        assert process.stdout is not None
        told = [await asyncio.to_thread(process.stdout.readline) for _ in range(2)]
        said = await asyncio.to_thread(said_at_ctrl_c, process)
    assert told[0] == "rollout/old-to-new run 1: old -> new\n"
    assert "no controller has looked at it yet" in told[1]
    assert said == "stopped: rollout/old-to-new goes on; `enginehouse rollout abort old-to-new` ends it"
    assert await store.get("Rollout", "old-to-new") is not None
