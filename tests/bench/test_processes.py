"""A measured process is pinned, counted with its children, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.build import BenchError
from bench.processes import Cores, Process, cpu_s, rss_mb
from tests.processes import is_running


def test_children_end_with_their_parent(cores: Cores, tmp_path: Path) -> None:
    process = Process(["sh", "-c", "sleep 600 & sleep 600"], cores.subject, tmp_path / "log")
    process.wait_until(lambda: len(process.tree()) == 3, timeout_s=10)
    pids = process.tree()
    assert {frozenset(os.sched_getaffinity(pid)) for pid in pids} == {frozenset({cores.subject})}
    assert rss_mb(pids) > 0
    process.stop()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_running(pid) for pid in pids)


def test_work_is_counted(cores: Cores, tmp_path: Path) -> None:
    process = Process(["sh", "-c", "while :; do :; done"], cores.subject, tmp_path / "log")
    process.wait_until(lambda: cpu_s(process.tree()) > 0.05, timeout_s=30)
    process.stop()


def test_one_that_ends_early_says_why(cores: Cores, tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo no such model >&2; exit 3"], cores.subject, tmp_path / "log")
    with pytest.raises(BenchError, match=r"ended with 3; .*no such model"):
        process.wait_until(lambda: False, timeout_s=10)
    process.stop()
