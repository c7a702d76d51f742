"""SliceRun: one claimed slice, its rows run as far as there is room, their results recorded.

A result counts from the moment that Redis took its segment (`JobStore.record`), and not before. Whatever
ends this process earlier leaves the row without a result, and whoever claims the slice next runs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.batch_jobs.answer import RowAnswer
from gateway.batch_jobs.assembly import read_input
from gateway.batch_jobs.config import BatchJobsConfig
from gateway.batch_jobs.contents import Contents
from gateway.batch_jobs.lines import Result, answered_line, pack, read_row
from model_registry.errors import RegistryUnavailableError
from telemetry.metrics import Metrics
from tenancy.batch_jobs.entities import BatchJob, Claim, Recording
from tenancy.batch_jobs.errors import ClaimLostError
from tenancy.batch_jobs.store import JobStore

_log = logging.getLogger(__name__)
_LOOK_S = 0.05
"""How soon a row that waits for room looks again."""
_PAUSE_S = 1.0
"""How long a slice rests after a row found no room, or a failed one waits for its next try."""
_MAX_BACKOFF_S = 2.0

AnswerRow = Callable[[BatchJob, bytes], Awaitable[RowAnswer]]
"""Runs the body of one row."""


class Tools(NamedTuple):
    """What every slice of a worker works with."""

    config: BatchJobsConfig
    store: JobStore
    contents: Contents
    metrics: Metrics
    answer: AnswerRow
    may_start: Callable[[BatchJob], bool]
    """Whether another row of the job may be started now."""
    on_idle: Callable[[], object]
    """Nothing of a slice waits to be started any more."""


class SliceRun:
    """Owned by one task of the worker; `stop` is called from others of the same loop."""

    def __init__(self, tools: Tools, job: BatchJob, claim: Claim) -> None:
        self._tools = tools
        self.job = job
        self._claim = claim
        self._waiting = deque(claim.rows)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._done: list[Result] = []
        self._attempts: dict[int, int] = {}
        self._left = set(claim.rows)
        """Rows without a recorded result."""
        self._segments = 0
        self._stopped = False
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._not_before_s = 0.0
        self._record_at_s: float | None = None
        self._renew_at_s = self._loop.time() + tools.config.lease_s / 3

    @property
    def waiting(self) -> int:
        """Rows that are not started yet."""
        return len(self._waiting)

    @property
    def unrecorded(self) -> int:
        """Rows that run, or whose result is not recorded yet."""
        return len(self._running) + len(self._done)

    @property
    def running(self) -> int:
        return len(self._running)

    def stop(self) -> None:
        """Start no further row; those that run are finished and recorded."""
        self._stopped = True
        self._waiting.clear()
        self._news.set()

    async def run(self) -> None:
        """Until every row is recorded, or `stop`ped and what ran is. Raises ClaimLostError."""
        try:
            while self._waiting or self._running or self._done:
                self._start()
                await self._rest()
                await self._renew()
                if self._done and self._is_due():
                    await self._record()
            if self._left:
                await self._store_says(lambda: self._tools.store.release(self._claim))
        except ClaimLostError:
            self._tools.metrics.batch_row("lost", self.unrecorded)
            raise
        finally:
            await self._cancel()

    # -- rows ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start as many rows as there is room for; each look takes what the one before has started."""
        while self._waiting and self._loop.time() >= self._not_before_s and self._tools.may_start(self.job):
            row = self._waiting.popleft()
            self._running[row] = self._loop.create_task(self._row(row), name=f"{self.job.id}:{row}")
            if not self._waiting:
                self._tools.on_idle()

    async def _row(self, row: int) -> None:
        again = True
        try:
            line = await asyncio.to_thread(read_input, self._tools.contents, self.job, row)
            read = read_row(line)
            answer = await self._tools.answer(self.job, bytes(read.body))
            if not self._is_no_result(row, answer):
                self._finished(row, str(read.custom_id), answer)
                again = False
        except Exception:
            self._not_before_s = self._loop.time() + _PAUSE_S
            _log.exception("row could not be run; it is tried again", extra={"job": self.job.id, "row": row})
        finally:
            del self._running[row]
            if again:
                self._tools.metrics.batch_row("again")
                if not self._stopped:
                    self._waiting.append(row)
            self._news.set()

    def _is_no_result(self, row: int, answer: RowAnswer) -> bool:
        """Whether the row is to be run again; failures that may be its own fault are counted."""
        if not answer.waits:
            attempts = self._attempts[row] = self._attempts.get(row, 0) + 1
            if not answer.may_be_retried or attempts >= self._tools.config.row_attempts:
                return False
        self._not_before_s = self._loop.time() + _PAUSE_S
        return True

    def _finished(self, row: int, custom_id: str, answer: RowAnswer) -> None:
        line = answered_line(
            self.job.id, row, custom_id, answer.status, answer.request_id, answer.body or b"null"
        )
        usage, ok = answer.usage, answer.status == 200
        tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0, usage.cached_tokens or 0)
        self._done.append(Result(row, ok, line, *tokens) if ok else Result(row, ok, line))
        if self._record_at_s is None:
            self._record_at_s = self._loop.time() + self._tools.config.record_s

    # -- the claim ----------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Until a row is done, or it is time for something else."""
        until_s = self._renew_at_s if self._record_at_s is None else min(self._renew_at_s, self._record_at_s)
        if self._waiting:
            until_s = min(until_s, max(self._loop.time() + _LOOK_S, self._not_before_s))
        try:
            async with asyncio.timeout_at(until_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def _is_due(self) -> bool:
        """Results wait for company, but not for long, and not for rows that do not run."""
        nothing_runs = not self._running and not self._waiting
        return nothing_runs or self._loop.time() >= (self._record_at_s or 0.0)

    async def _renew(self) -> None:
        if self._loop.time() < self._renew_at_s:
            return
        lease_s = self._tools.config.lease_s
        try:
            may_go_on = await self._tools.store.renew(self._claim, lease_s)
        except RegistryUnavailableError:
            self._renew_at_s = self._loop.time() + self._tools.config.poll_s
            return
        self._renew_at_s = self._loop.time() + lease_s / 3
        if not may_go_on:
            self.stop()

    async def _record(self) -> None:
        """Write what is done as a segment, then have it count; rows go on running meanwhile."""
        results, self._done, self._record_at_s = self._done, [], None
        self._segments += 1
        name = f"{self._claim.holder}-{self._segments}"
        try:
            await self._keep(name, pack(results))
            recording = _recording(name, results)
            done = self._left <= set(recording.rows)
            lease_s = self._tools.config.lease_s
            await self._store_says(
                lambda: self._tools.store.record(self._claim, lease_s, recording, done=done)
            )
        except BaseException:
            self._done += results
            raise
        self._left -= set(recording.rows)
        self._tools.metrics.batch_row("completed", recording.completed)
        self._tools.metrics.batch_row("failed", recording.failed)

    async def _keep(self, name: str, segment: bytes) -> None:
        """Store a segment; a full disk is waited for, as Redis is."""
        delay_s = _LOOK_S
        while True:
            try:
                await asyncio.to_thread(self._tools.contents.keep_part, self.job.id, name, segment)
            except OSError as error:
                extra = {"job": self.job.id, "reason": str(error)}
                _log.error("results cannot be stored; their job waits", extra=extra)
            else:
                return
            await asyncio.sleep(delay_s)
            await self._renew()
            delay_s = min(2 * delay_s, _MAX_BACKOFF_S)

    async def _store_says(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Say it until Redis answers: without an answer nobody knows whether it was done."""
        delay_s = _LOOK_S
        while True:
            try:
                await ask()
            except RegistryUnavailableError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _MAX_BACKOFF_S)
            else:
                return

    async def _cancel(self) -> None:
        """Leave no row running."""
        self.stop()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _recording(segment: str, results: list[Result]) -> Recording:
    return Recording(
        segment,
        tuple(result.row for result in results),
        completed=sum(result.ok for result in results),
        failed=sum(not result.ok for result in results),
        input_tokens=sum(result.input_tokens for result in results),
        output_tokens=sum(result.output_tokens for result in results),
        cached_tokens=sum(result.cached_tokens for result in results),
    )
