"""ModelCallers: streamed requests for many models, at given times, whether others are answered or not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

from bench.scale.asking import Outcome, ask
from bench.stack import Stack

TIMEOUT_S = 300.0
OUTPUT_TOKENS = 8
SAYS_EVERY = 50


class ModelCallers:
    """Requests to all gateways in turn, and what became of each."""

    def __init__(self, stack: Stack, tenant: str) -> None:
        self._stack, self._key = stack, stack.keys[tenant]
        self._gateways = itertools.cycle(stack.gateways)
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Outcome] = []

    async def come(self, arrivals: Sequence[tuple[float, str]], say: Callable[[str], None]) -> None:
        """Ask for each model at its time; returns with requests still under way."""
        began_s = time.monotonic()
        for number, (at_s, model) in enumerate(arrivals):
            await asyncio.sleep(began_s + at_s - time.monotonic())
            self.ask(model)
            if number % SAYS_EVERY == 0:
                wrong = sum(one.wrong is not None for one in self.asked)
                say(f"{number} asked, {len(self._tasks)} under way, {wrong} failed")

    def ask(self, model: str) -> None:
        """Send one request."""
        one = Outcome(model, time.monotonic())
        self.asked.append(one)
        task = asyncio.create_task(self._ask(one))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answered(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)

    async def _ask(self, one: Outcome) -> None:
        body = {
            "max_tokens": OUTPUT_TOKENS,
            "messages": [{"role": "user", "content": "What is in lot 7 of the depot?"}],
        }
        await ask(self._stack, next(self._gateways), self._key, one, body, TIMEOUT_S)
