"""Lifecycle: background tasks that are watched, an orderly end, and small helpers of a long-lived process.

Everything here belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

_log = logging.getLogger(__name__)

_MAX_RESTART_DELAY_S: Final = 30.0
_STEADY_AFTER_S: Final = 60.0
_CANCEL_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02

Work = Coroutine[Any, Any, object]


class Supervisor:
    """Owns the background tasks of a process; none of them is meant to end before `close`."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._problems: dict[str, str] = {}

    @property
    def healthy(self) -> bool:
        """Whether every task runs."""
        return not self._problems

    @property
    def problems(self) -> Mapping[str, str]:
        """Why a task does not run, by its name."""
        return MappingProxyType(self._problems)

    def start(
        self, name: str, work: Work | Callable[[], Work], *, restart_after_s: float | None = None
    ) -> None:
        """Run `work` until `close`.

        Ending by itself, with or without an error, makes the process unhealthy. With `restart_after_s`
        `work` is a function that is called again after that delay, doubled with each end up to 30 s and
        set back once it ran for a minute; the process is unhealthy only in between.
        """
        if name in self._tasks:
            raise ValueError(f"a background task named {name!r} already runs; give this one another name")
        if callable(work):
            runner = (
                self._run_once(name, work())
                if restart_after_s is None
                else self._run_again(name, work, restart_after_s)
            )
        elif restart_after_s is None:
            runner = self._run_once(name, work)
        else:
            work.close()
            raise ValueError(f"background task {name!r}: restart_after_s needs a function, not a coroutine")
        self._tasks[name] = asyncio.get_running_loop().create_task(runner, name=name)

    async def close(self) -> None:
        """Cancel the tasks, the youngest first, each given 5 s to end."""
        for name, task in reversed(self._tasks.items()):
            task.cancel()
            _, late = await asyncio.wait([task], timeout=_CANCEL_TIMEOUT_S)
            if late:
                _log.error("background task ignores its cancellation", extra={"task": name})
        self._tasks.clear()

    async def _run_once(self, name: str, work: Work) -> None:
        reason = await _ended(work)
        self._problems[name] = reason
        _log.error("background task ended", extra={"task": name, "reason": reason})

    async def _run_again(self, name: str, work: Callable[[], Work], restart_after_s: float) -> None:
        loop, delay_s = asyncio.get_running_loop(), restart_after_s
        while True:
            started_s = loop.time()
            reason = await _ended(work())
            if loop.time() - started_s >= _STEADY_AFTER_S:
                delay_s = restart_after_s
            self._problems[name] = reason
            _log.warning(
                "background task restarts", extra={"task": name, "reason": reason, "delay_s": delay_s}
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _MAX_RESTART_DELAY_S)
            del self._problems[name]


async def _ended(work: Work) -> str:
    """Run `work` and say how it ended; only cancellation passes through."""
    try:
        await work
    except Exception as error:
        _log.exception("background task failed")
        return f"{type(error).__name__}: {error}"
    return "ended without an error"


class Drain:
    """The orderly end of a server: unready, closed to new requests, the open ones finish or are cut.

    `in_flight` counts the requests that still run. `notice_s` is how long load balancers get to see that
    the process is unready before anything else happens; `deadline_s` is how long requests get after it.
    """

    def __init__(
        self, in_flight: Callable[[], int], *, deadline_s: float, notice_s: float | None = None
    ) -> None:
        self._in_flight = in_flight
        self._deadline_s = deadline_s
        self._notice_s = notice_s
        self._requested = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the end was asked for: the process is unready."""
        return self._requested.is_set()

    def listen(self) -> None:
        """Let SIGTERM and SIGINT ask for the end; a second one cuts the remaining requests at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request, signal.Signals(number).name)

    def request(self, reason: str) -> None:
        """Ask for the end; asking again cuts the remaining requests."""
        if self._requested.is_set():
            self._hurry.set()
        _log.info("drain requested", extra={"reason": reason, "in_flight": self._in_flight()})
        self._requested.set()

    async def requested(self) -> None:
        """Wait until the end is asked for."""
        await self._requested.wait()

    async def run(
        self, stop_accepting: Callable[[], Awaitable[object]], cut: Callable[[], Awaitable[object]]
    ) -> int:
        """Wait for the request to end, then end; returns how many requests were cut.

        `stop_accepting` closes the listening sockets, `cut` ends what still runs at the deadline.
        """
        await self.requested()
        await self._wait_until(lambda: False, self._notice_s or 0.0)
        await stop_accepting()
        await self._wait_until(lambda: self._in_flight() <= 0, self._deadline_s)
        left = max(0, self._in_flight())
        if left:
            _log.warning("requests cut by the drain deadline", extra={"requests": left})
        await cut()
        return left

    async def _wait_until(self, done: Callable[[], bool], timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while not done() and (left_s := end_s - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_S, left_s)):
                    await self._hurry.wait()
                return


async def every(period_s: float, action: Callable[[], object]) -> None:
    """Call `action` again and again, `period_s` apart."""
    while True:
        await asyncio.sleep(period_s)
        action()


async def watch_loop_lag(report: Callable[[float], object], period_s: float = 0.25) -> None:
    """Report how many seconds late the event loop wakes up for a timer."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + period_s
        await asyncio.sleep(period_s)
        report(max(0.0, loop.time() - due_s))
