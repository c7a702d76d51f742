"""Callers: streamed requests that come when they come, whether others are answered or not."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from dataclasses import dataclass

import aiohttp

from bench.scale.fleet import MODEL, OUTPUT_TOKENS, TENANT
from bench.stack import Stack

REQUEST_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Outcome:
    """How one request fared; times of `time.monotonic`."""

    sent_s: float
    first_s: float | None = None
    cold: bool = False
    """The gateway says that it was held for a model that was not up."""
    wrong: str | None = None
    """None: answered whole."""

    @property
    def ttft_s(self) -> float | None:
        """To its first token; None: it has none yet."""
        return None if self.first_s is None else self.first_s - self.sent_s


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
        outcome = Outcome(time.monotonic())
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
            "model": MODEL,
            "max_tokens": OUTPUT_TOKENS,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "messages": [{"role": "user", "content": f"What is in lot {number} of the depot?"}],
        }
        headers = {"Authorization": f"Bearer {self._stack.keys[TENANT]}"}
        url = f"{next(self._gateways)}/v1/chat/completions"
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        done = False
        try:
            async with self._stack.session.post(url, json=body, headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    outcome.wrong = f"{response.status} {(await response.text())[:200]}"
                    return
                outcome.cold = response.headers.get("x-enginehouse-cold") == "1"
                async for line in response.content:
                    if not line.startswith(b"data: "):
                        continue
                    if line.startswith(b"data: [DONE]"):
                        done = True
                    elif outcome.first_s is None and _has_text(line):
                        outcome.first_s = time.monotonic()
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome.wrong = f"{type(error).__name__} {error}"
            return
        if not done or outcome.first_s is None:
            outcome.wrong = "it ended without its end"


def _has_text(line: bytes) -> bool:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
