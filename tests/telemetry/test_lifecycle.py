"""Background tasks that are watched, and the orderly end of a server."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest

from telemetry.garbage import freeze_gc
from telemetry.lifecycle import Drain, Supervisor, every, watch_loop_lag


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of the code under test have no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    made = Supervisor()
    yield made
    await made.close()


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise OSError("registry away")


async def test_all_is_well_while_tasks_run(supervisor: Supervisor) -> None:
    supervisor.start("watcher", for_ever())
    await asyncio.sleep(0)
    assert supervisor.healthy


async def test_a_task_that_fails_makes_the_process_unhealthy_and_says_why(supervisor: Supervisor) -> None:
    supervisor.start("watcher", fail())
    await until(lambda: not supervisor.healthy)
    assert dict(supervisor.problems) == {"watcher": "OSError: registry away"}


async def test_so_does_one_that_just_returns(supervisor: Supervisor) -> None:
    supervisor.start("watcher", asyncio.sleep(0))
    await until(lambda: not supervisor.healthy)
    assert dict(supervisor.problems) == {"watcher": "ended without an error"}


async def test_a_task_with_restart_comes_back_and_the_process_is_healthy_again(
    supervisor: Supervisor,
) -> None:
    runs: list[int] = []

    async def fail_once() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise OSError("registry away")
        await for_ever()

    supervisor.start("watcher", fail_once, restart_after_s=0.05)
    await until(lambda: not supervisor.healthy)
    await until(lambda: supervisor.healthy)
    assert len(runs) == 2


async def test_close_cancels_the_youngest_first_and_waits_for_each(supervisor: Supervisor) -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            ended.append(name)

    for name in ("first", "second", "third"):
        supervisor.start(name, work(name))
    await asyncio.sleep(0)
    await supervisor.close()
    assert ended == ["third", "second", "first"]


async def test_a_restart_needs_a_function_and_names_are_unique(supervisor: Supervisor) -> None:
    supervisor.start("watcher", for_ever)
    with pytest.raises(ValueError, match="already runs"):
        supervisor.start("watcher", for_ever)
    with pytest.raises(ValueError, match="needs a function"):
        supervisor.start("other", for_ever(), restart_after_s=1)


class Server:
    """Something with requests, that notes what a drain does to it."""

    def __init__(self, in_flight: int, deadline_s: float, notice_s: float | None = None) -> None:
        self.in_flight = in_flight
        self.seen: list[str] = []
        self.drain = Drain(lambda: self.in_flight, deadline_s=deadline_s, notice_s=notice_s)

    async def stop_accepting(self) -> None:
        self.seen.append("stopped accepting")

    async def cut(self) -> None:
        self.seen.append(f"cut {self.in_flight}")

    def run(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.drain.run(self.stop_accepting, self.cut))


async def test_a_drain_waits_for_requests() -> None:
    server = Server(in_flight=2, deadline_s=10)
    running = server.run()
    await asyncio.sleep(0)
    assert not server.drain.draining
    server.drain.request("test")
    assert server.drain.draining
    await until(lambda: server.seen == ["stopped accepting"])
    server.in_flight = 0
    assert await running == 0
    assert server.seen == ["stopped accepting", "cut 0"]


async def test_requests_left_at_the_deadline_are_cut() -> None:
    server = Server(in_flight=3, deadline_s=0.1)
    running = server.run()
    server.drain.request("test")
    assert await running == 3
    assert "cut 3" in server.seen


async def test_the_process_is_unready_for_a_notice_before_it_stops_accepting() -> None:
    server = Server(in_flight=0, deadline_s=10, notice_s=0.2)
    running, began_s = server.run(), time.monotonic()
    server.drain.request("test")
    await until(lambda: bool(server.seen))
    assert time.monotonic() - began_s >= 0.19  # loops count in whole milliseconds
    await running


async def test_sigterm_asks_for_the_end_and_a_second_one_cuts_at_once() -> None:
    server = Server(in_flight=1, deadline_s=3600)
    server.drain.listen()
    loop = asyncio.get_running_loop()
    try:
        running = server.run()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: server.seen == ["stopped accepting"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 5) == 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def test_a_blocked_loop_is_reported_as_lag(supervisor: Supervisor) -> None:
    lags: list[float] = []
    supervisor.start("lag", watch_loop_lag(lags.append, period_s=0.01))
    await until(lambda: len(lags) >= 1)
    time.sleep(0.2)  # noqa: ASYNC251 - blocking the loop is what is measured
    await until(lambda: max(lags) > 0.1)


async def test_every_calls_again_and_again(supervisor: Supervisor) -> None:
    calls: list[int] = []
    supervisor.start("flush", every(0.001, lambda: calls.append(1)))
    await until(lambda: len(calls) >= 3)


def test_what_is_alive_is_taken_out_of_garbage_collection() -> None:
    try:
        assert freeze_gc() > 1000
    finally:
        gc.unfreeze()
