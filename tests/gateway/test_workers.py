"""Workers that share a port: one dies, the supervisor dies, all are asked to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from gateway.workers import WorkersError, WorkersPlan, describe_exit, reserve_port, run_workers

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Running:
    """A supervisor process with its workers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        plan = {
            "worker": "streams",
            "count": 2,
            "host": "127.0.0.1",
            "port": 0,
            "drain_deadline_s": 10.0,
            **settings,
        }
        self.seen: set[int] = set()
        self._ready = folder / "ready"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "supervisor_script.py"), json.dumps(plan), str(self._ready)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def port(self) -> int:
        """Waits until all workers listen."""
        until(lambda: self._ready.exists() or self.process.poll() is not None)
        assert self._ready.exists(), self.log
        return int(self._ready.read_text())

    def workers(self) -> set[int]:
        """Pids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        found = {int(pid) for pid in children.split()}
        self.seen |= found
        return found

    def get(self, path: str) -> str:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def serving(self, tries: int = 30) -> set[int]:
        """Pids that answered."""
        return {int(self.get("/pid")) for _ in range(tries)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts supervisors; none of their processes is left at the end."""
    started: list[Running] = []

    def make(**settings: Any) -> Running:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Running(folder, **settings))
        return started[-1]

    yield make
    for each in started:
        if each.process.poll() is None:
            each.workers()
        each.process.kill()
        each.process.wait()
        try:
            until(lambda each=each: not any(map(alive, each.seen)), timeout_s=15)
        finally:
            for pid in filter(alive, each.seen):
                os.kill(pid, signal.SIGKILL)


def test_all_workers_serve_on_one_port_that_was_any_free_one(start: Callable[..., Running]) -> None:
    running = start(count=3)
    assert running.port > 0
    until(lambda: running.serving() == running.workers())
    assert len(running.workers()) == 3


def test_a_killed_worker_is_replaced_while_the_other_serves(start: Callable[..., Running]) -> None:
    running = start()
    port = running.port
    before = running.workers()
    victim = next(iter(before))
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim))
    assert running.serving(5) <= before - {victim} | running.workers(), "the survivor answers meanwhile"
    until(lambda: len(running.workers() - {victim}) == 2)
    until(lambda: running.serving() == running.workers())
    assert running.port == port
    assert before - {victim} < running.workers()


def test_a_new_worker_is_told_whose_processes_have_ended(start: Callable[..., Running]) -> None:
    """And of no other: the one that still serves is not among them."""

    def lives() -> dict[int, dict[str, Any]]:
        told = [json.loads(running.get("/lives")) for _ in range(30)]
        return {one["pid"]: one for one in told}

    running, killed = start(), list[str]()
    for _ in range(2):
        until(lambda: len(lives()) == 2)
        before = lives()
        victim = min(before)
        killed.append(before[victim]["life"])
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: not alive(victim))
        until(lambda: len(lives()) == 2)
        now = lives()
        (new,) = now.keys() - before.keys()
        assert now[new]["ended"] == killed
    assert len({one["life"] for one in (*before.values(), *now.values())}) == 3


def test_no_worker_outlives_a_killed_supervisor(start: Callable[..., Running]) -> None:
    running = start(count=3)
    assert running.port
    workers = running.workers()
    running.process.kill()
    running.process.wait()
    until(lambda: not any(alive(pid) for pid in workers))


def test_sigterm_lets_a_stream_finish_and_then_everything_ends(start: Callable[..., Running]) -> None:
    running = start()
    connection = HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("GET", "/count?to=40")
    response = connection.getresponse()
    assert response.readline() == b"0\n"
    workers = running.workers()
    running.process.send_signal(signal.SIGTERM)
    assert response.read().decode().split() == [str(number) for number in range(1, 40)]
    connection.close()
    assert running.process.wait(timeout=20) == 0
    assert not any(alive(pid) for pid in workers)


def test_a_second_sigterm_cuts_what_still_runs(start: Callable[..., Running]) -> None:
    running = start(count=1)
    connection = HTTPConnection("127.0.0.1", running.port, timeout=20)
    connection.request("GET", "/count?to=100000")
    response = connection.getresponse()
    assert response.readline() == b"0\n"
    running.process.send_signal(signal.SIGTERM)
    until(lambda: _refuses(running.port))
    running.process.send_signal(signal.SIGTERM)
    with pytest.raises((HTTPException, ConnectionError)):
        response.read()
    connection.close()
    assert running.process.wait(timeout=4) == 0, "well before the deadlines"


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_worker_that_ignores_its_end_is_killed(start: Callable[..., Running]) -> None:
    running = start(worker="deaf", count=1, drain_deadline_s=0.1, kill_after_s=0.2)
    assert running.port
    (worker,) = running.workers()
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=20) == 0
    assert not alive(worker)


def test_a_crash_loop_ends_with_a_sentence(start: Callable[..., Running]) -> None:
    running = start(worker="cannot_start")
    assert running.process.wait(timeout=30) == 1
    assert "no such model folder" in running.log
    last = running.log.splitlines()[-1]
    assert "ended 5 times in a row within 10 s of its start (last: exit code 1)" in last
    assert "Traceback" not in running.log


def test_a_worker_that_has_served_is_started_again_for_ever(start: Callable[..., Running]) -> None:
    """Whatever ends it may pass; a gateway that gave up would take the other workers' requests with it."""
    running = start(worker="brief", count=1)
    until(lambda: running.log.count("worker ended; it starts again") >= 6)
    assert running.process.poll() is None


def test_the_others_serve_on_while_a_worker_cannot_be_forked(start: Callable[..., Running]) -> None:
    running = start(failing_fork=3)
    assert running.port > 0
    before = running.workers()
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(running.workers() - before) == 1)
    assert running.log.count("it starts again") == 2, "once killed, once not forked"
    assert running.process.poll() is None
    until(lambda: running.serving() == running.workers())


def test_a_worker_that_cannot_be_forked_at_first_ends_all(start: Callable[..., Running]) -> None:
    running = start(failing_fork=2)
    assert running.process.wait(timeout=20) == 1
    assert "worker 1 cannot start: Cannot allocate memory" in running.log


def test_a_worker_that_cannot_run_as_configured_is_started_once(start: Callable[..., Running]) -> None:
    running = start(worker="wrongly_configured", count=1)
    assert running.process.wait(timeout=30) == 1
    assert "cannot run as configured" in running.log


def test_a_port_in_use_is_refused_with_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        plan = WorkersPlan(serve=print, count=1, host="127.0.0.1", port=port, drain_deadline_s=1)
        with pytest.raises(
            WorkersError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .* choose another port"
        ):
            run_workers(plan)


def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(WorkersError, match=r"cannot listen on 192\.0\.2\.1:0"):
        reserve_port("192.0.2.1", 0)
    with pytest.raises(WorkersError, match="'no such host'"):
        reserve_port("no such host", 0)


def test_a_reserved_port_takes_no_connection_itself() -> None:
    with reserve_port("127.0.0.1", 0) as reserved:
        assert _refuses(reserved.getsockname()[1])


def test_metrics_of_former_runs_and_gauges_of_dead_workers_are_removed(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"")
    running = start(count=1, metrics_dir=str(folder))
    assert running.port
    assert list(folder.iterdir()) == []
    (worker,) = running.workers()
    (folder / f"gauge_livesum_{worker}.db").write_bytes(b"")
    (folder / f"counter_{worker}.db").write_bytes(b"")
    os.kill(worker, signal.SIGKILL)
    until(lambda: [file.name for file in folder.iterdir()] == [f"counter_{worker}.db"])


def test_a_worker_whose_supervisor_is_already_gone_does_not_start() -> None:
    code = (
        "import os; from gateway.worker_seat import WorkerSeat\n"
        "WorkerSeat(0, '127.0.0.1', 1, supervisor_pid=os.getpid(), ready_fd=1).take(); print('on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "supervisor of this worker is gone" in done.stderr


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (-9, "killed by SIGKILL"), (-250, "killed by signal 250")]
)
def test_exits_are_described(code: int, words: str) -> None:
    assert describe_exit(code) == words
