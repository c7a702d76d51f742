"""The time of a change is that of the last worker, every worker is met, and nothing is left running."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from io import StringIO

import pytest
from rich.console import Console

from bench import registry_propagation
from bench.build import BenchError
from bench.processes import tree
from bench.registry_propagation import Times, connections, gateway, judged, measure
from tests.processes import is_running

COMMAND = [sys.executable, "-m", "bench.registry_propagation", "--workers", "2", "--changes", "5"]


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tree_once_measuring(process: subprocess.Popen[str]) -> list[int]:
    """The process, its Redis, the gateway's supervisor and both workers."""
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("workers: "):
        assert line, f"ended early: {process.stderr and process.stderr.read()}"
    pids = tree(process.pid)
    assert {int(pid) for pid in line.removeprefix("workers: ").split(",")} < set(pids)
    assert len(pids) >= 5
    return pids


def all_end(pids: list[int], within_s: float = 10) -> bool:
    deadline_s = time.monotonic() + within_s
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True


def test_the_result_is_the_last_line_and_its_verdict_the_exit_status() -> None:
    with start() as process:
        pids = tree_once_measuring(process)
        out, _ = process.communicate(timeout=60)
    result = json.loads(out.splitlines()[-1].removeprefix("RESULT "))
    assert (result["workers"], result["changes"]) == (2, 5)
    assert 0 < result["from_answer_p50_ms"] < result["from_call_p50_ms"] <= result["from_call_p99_ms"]
    assert result["ok"] == (result["from_call_p99_ms"] < 100)
    assert process.returncode == (0 if result["ok"] else 1)
    assert all_end(pids)


def test_interrupted_it_leaves_nothing() -> None:
    with start() as process:
        pids = tree_once_measuring(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert all_end(pids)


async def checked(url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> Times:
    async with connections(url, key, 2) as workers:
        assert len({worker.pid for worker in workers}) == 2
        times = await measure(workers, 3, Console(file=StringIO()))
        ahead = (await workers[0].snapshot()).version + 1
        monkeypatch.setattr(registry_propagation, "SEEN_TIMEOUT_S", 0.1)
        with pytest.raises(BenchError, match=rf"did not show version {ahead} within 0.1 s"):
            await workers[1].shows(ahead)
        workers[0].pid = workers[1].pid
        with pytest.raises(BenchError, match="another worker answered"):
            await workers[0].snapshot()
    return times


def test_each_worker_is_asked_on_its_own_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with gateway(2) as (url, key):
        times = asyncio.run(checked(url, key, monkeypatch))
    assert len(times.from_call) == len(times.from_answer) == 3
    assert all(0 < answer < call for call, answer in zip(times.from_call, times.from_answer, strict=True))
    assert len(times.asking) >= 2 * 3


def test_two_slow_changes_in_a_hundred_miss_the_bar() -> None:
    fast = [10.0] * 100
    assert judged(Times(fast, fast, [1.0]))["ok"] is True
    late = judged(Times([10.0] * 98 + [100.0, 100.0], fast, [1.0]))
    assert (late["ok"], late["from_call_p99_ms"], late["from_answer_p99_ms"]) == (False, 100.0, 10.0)
