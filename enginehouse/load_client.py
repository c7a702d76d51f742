"""Load client: sends requests when a plan says, whatever became of those before (open loop)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import aiohttp

from engine_builder.loadtest.outcomes import Outcome, Run
from engine_builder.loadtest.outcomes import run as run_of
from engine_builder.loadtest.plan import Planned
from enginehouse.errors import CommandError
from enginehouse.targets import Target
from enginehouse.timed_requests import TimedRequests

_ERROR_LENGTH = 120

Says = Callable[[int, int, int], None]
"""Takes requests sent, requests under way, and errors."""


class LoadClient:
    """One target's; use as `async with`. Connections are kept and used again."""

    def __init__(self, target: Target, concurrency: int) -> None:
        self._target = target
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._slots = asyncio.Semaphore(concurrency)
        self._requests = TimedRequests(target.connection, target.model, (), 16, self._session)

    async def __aenter__(self) -> LoadClient:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._session.close()

    async def calibrate(self) -> None:
        """Learn how to make prompts to length. Raises ApiError as the target refuses."""
        await self._requests.calibrate()

    async def run(self, plan: Sequence[Planned], seconds: float, says: Says) -> Run:
        """Send all of a plan of so many seconds, and wait for the answers.

        Past `concurrency` requests under way a request waits, which counts in its times as lateness.
        """
        outcomes: list[Outcome] = []
        began_s = monotonic()
        async with asyncio.TaskGroup() as group:
            for sent, one in enumerate(plan, 1):
                await asyncio.sleep(max(0.0, began_s + one.at_s - monotonic()))
                await self._slots.acquire()
                group.create_task(self._ask(one, began_s, outcomes))
                errors = sum(done.error is not None for done in outcomes)
                says(sent, sent - len(outcomes), errors)
        return run_of(outcomes, seconds)

    async def _ask(self, planned: Planned, began_s: float, outcomes: list[Outcome]) -> None:
        late_s = max(0.0, monotonic() - began_s - planned.at_s)
        try:
            sample = (await self._requests.ask(planned.prompt_tokens, planned.output_tokens)).sample
        except CommandError as error:
            outcomes.append(Outcome(planned.at_s, late_s, error=error.message[:_ERROR_LENGTH]))
        else:
            outcomes.append(
                Outcome(
                    planned.at_s,
                    late_s,
                    sample.prompt_tokens,
                    sample.output_tokens,
                    late_s + sample.ttft_s,
                    late_s + sample.took_s,
                )
            )
        finally:
            self._slots.release()
