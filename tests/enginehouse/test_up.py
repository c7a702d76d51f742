"""`enginehouse up` as an operator sees it: ready when every model answers, and nothing left at its end.

The stack is small and served without Triton, so that each test can have its own; `tests/stack` runs the demo.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enginehouse.builds_api import builders
from enginehouse.connection import Connection
from enginehouse.local.ready import each_answers
from enginehouse.objects import fetch
from model_registry.build_jobs.entities import BuilderSeen
from telemetry.process_stat import stat_of

STACK = """
servers:
  - name: engines
    engines: [{weights: depot-chat}]
models: [{name: depot-chat, weights: depot-chat}]
deployments: [{name: depot-chat, model: depot-chat, server: engines, target: tensorrt_llm}]
"""
READY_KEYS = {"base_url", "admin_url", "api_key", "admin_key", "redis_url", "triton", "models"}
DEADLINE_S = 60.0


class Up:
    """One `up` in a process of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.state_dir = folder / "state"
        self.ready_file = folder / "ready.json"
        self.output = folder / "output"
        self.ready_file.unlink(missing_ok=True)
        (folder / "stack.yaml").write_text(STACK)
        command = [sys.executable, "-m", "enginehouse", "up", "--port", "0", "--fallback"]
        command += ["--state-dir", str(self.state_dir), "--ready-file", str(self.ready_file)]
        command += ["--stack", str(folder / "stack.yaml"), *more]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ENGINEHOUSE_")
        }
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def ready(self) -> dict[str, Any]:
        """What the ready file says, once it is there."""
        self.until(self.ready_file.exists)
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def pids(self) -> dict[str, int]:
        """Name -> pid of what runs now."""
        record = json.loads((self.state_dir / "processes.json").read_text())
        return {item["name"]: item["pid"] for item in record["processes"]}

    def until(self, condition: Callable[[], object]) -> None:
        """Poll; the output of `up` is shown when it takes too long."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def end(self) -> int:
        """Ask it to end, as Ctrl-C or a service manager does; returns its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `up` on this test's own state directory; ends it in any case."""
    started: list[Up] = []

    def run(*more: str) -> Up:
        started.append(Up(tmp_path, *more))
        return started[-1]

    yield run
    for up in started:
        if up.process.poll() is None:
            up.end()


async def _answers(ready: dict[str, Any]) -> None:
    connection = Connection(ready["base_url"].removesuffix("/v1"), ready["api_key"], ready["admin_key"])
    await each_answers(connection, dict.fromkeys(ready["models"], "text"))


def test_up_is_ready_when_its_models_answer_and_leaves_nothing(start: Callable[..., Up]) -> None:
    """The ready file has all that a client needs, is private, and goes with the stack; a builder is there."""
    up = start("--builder")
    ready = up.ready()
    assert ready.keys() >= READY_KEYS
    assert ready["base_url"].endswith("/v1")
    assert ready["models"] == ["depot-chat"]
    assert ready["triton"] == []
    assert stat.S_IMODE(up.ready_file.stat().st_mode) == 0o600
    asyncio.run(_answers(ready))
    up.until(lambda: asyncio.run(_builders(ready)))
    assert [one.able.runtimes for one in asyncio.run(_builders(ready)) if one.runs] == [("emulated",)]
    pids = up.pids()
    assert pids.keys() == {"redis", "engines-tensorrt_llm", "controller", "gateway", "builder"}
    assert up.end() == 0
    assert [name for name, pid in pids.items() if stat_of(pid)] == []
    assert not up.ready_file.exists()
    assert not (up.state_dir / "processes.json").exists()
    assert ready["api_key"] in up.output.read_text()


def test_the_next_up_ends_what_a_killed_one_left(start: Callable[[], Up]) -> None:
    """kill -9 of `up` leaves its processes running; by pid and start time the next one finds them all.

    However the last one ended, its servers listened elsewhere: an operator who lists endpoints sees those of
    this run alone.
    """
    killed = start()
    first = killed.ready()
    endpoints, left = [asyncio.run(_endpoints(first))], killed.pids()
    killed.process.kill()
    killed.process.wait()
    assert all(stat_of(pid) for pid in left.values())
    up = start()
    ready = up.ready()
    assert [name for name, pid in left.items() if stat_of(pid)] == []
    assert (ready["api_key"], ready["admin_key"]) == (first["api_key"], first["admin_key"])
    asyncio.run(_answers(ready))
    endpoints.append(asyncio.run(_endpoints(ready)))
    assert up.end() == 0
    assert "Stopped; nothing is left running." in up.output.read_text()
    up = start()
    endpoints.append(asyncio.run(_endpoints(up.ready())))
    assert up.end() == 0
    assert [len(found) for found in endpoints] == [1, 1, 1]
    assert len(set().union(*endpoints)) == 3


async def _builders(ready: dict[str, Any]) -> list[BuilderSeen]:
    return await builders(Connection(ready["base_url"].removesuffix("/v1"), None, ready["admin_key"]))


async def _endpoints(ready: dict[str, Any]) -> set[str]:
    connection = Connection(ready["base_url"].removesuffix("/v1"), ready["api_key"], ready["admin_key"])
    return {item["name"] for item in (await fetch(connection, "endpoints")).items}


def test_a_killed_part_comes_back_and_models_answer(start: Callable[[], Up]) -> None:
    """Each in turn: at the same address, with the registry's content."""
    up = start()
    ready = up.ready()
    for name, pid in up.pids().items():
        os.kill(pid, signal.SIGKILL)
        up.until(lambda name=name, pid=pid: up.pids().get(name, pid) != pid)  # type: ignore[misc]
        asyncio.run(_answers(ready))
        assert f"{name} ended with status -9; starting it again" in up.output.read_text()
    assert up.end() == 0


def test_ctrl_c_while_it_starts_leaves_nothing(start: Callable[[], Up]) -> None:
    """Whatever has been started by then ends."""
    up = start()
    up.until(lambda: (up.state_dir / "processes.json").exists() and "gateway" in up.pids())
    pids = up.pids()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=30) == 0
    assert [name for name, pid in pids.items() if stat_of(pid)] == []
