"""Callers: streamed requests that come when they come, whether others are answered or not."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

from bench.scale.asking import Outcome, ask
from bench.scale.fleet import MODEL, OUTPUT_TOKENS, TENANT
from bench.stack import Stack

REQUEST_TIMEOUT_S = 120.0


class Callers:
    """Requests to all gateways in turn, and what became of each."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._rng = random.Random(seed)
        self._gateways = itertools.cycle(stack.gateways)
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcomes: list[Outcome] = []

    async def come(self, per_s: float, for_s: float) -> None:
        """Poisson arrivals for so long; returns then, with requests still under way."""
        until_s = time.monotonic() + for_s
        while True:
            await asyncio.sleep(self._rng.expovariate(per_s))
            if time.monotonic() >= until_s:
                return
            self.ask()

    def ask(self) -> Outcome:
        """Send one request."""
        outcome = Outcome(MODEL, time.monotonic())
        self.outcomes.append(outcome)
        task = asyncio.create_task(self._ask(outcome, next(self._numbers)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return outcome

    async def answered(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)

    async def _ask(self, outcome: Outcome, number: int) -> None:
        body = {
            "max_tokens": OUTPUT_TOKENS,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": f"What is in lot {number} of the depot?"}],
        }
        key = self._stack.keys[TENANT]
        await ask(self._stack, next(self._gateways), key, outcome, body, REQUEST_TIMEOUT_S)
