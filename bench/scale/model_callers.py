"""ModelCallers: streamed requests for many models, at given times, whether others are answered or not."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from bench.stack import Stack

TIMEOUT_S = 300.0
OUTPUT_TOKENS = 8
SAYS_EVERY = 50


@dataclass(slots=True)
class Asked:
    """One request; times of `time.monotonic`."""

    model: str
    sent_s: float
    first_s: float | None = None
    cold: bool = False
    """The gateway says that it was held for a model that was not up."""
    wrong: str | None = None
    """None: answered whole."""

    @property
    def ttft_s(self) -> float | None:
        """To its first token; None: it has none."""
        return None if self.first_s is None else self.first_s - self.sent_s


class ModelCallers:
    """Requests to all gateways in turn, and what became of each."""

    def __init__(self, stack: Stack, tenant: str) -> None:
        self._stack, self._key = stack, stack.keys[tenant]
        self._gateways = itertools.cycle(stack.gateways)
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []

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
        one = Asked(model, time.monotonic())
        self.asked.append(one)
        task = asyncio.create_task(self._ask(one))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answered(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)

    async def _ask(self, one: Asked) -> None:
        body = {
            "model": one.model,
            "max_tokens": OUTPUT_TOKENS,
            "temperature": 0,
            "stream": True,
            "messages": [{"role": "user", "content": "What is in lot 7 of the depot?"}],
        }
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{next(self._gateways)}/v1/chat/completions"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        done = False
        try:
            async with self._stack.session.post(url, json=body, headers=headers, timeout=timeout) as response:
                if response.status != 200:
                    one.wrong = f"{response.status} {(await response.text())[:200]}"
                    return
                one.cold = response.headers.get("x-enginehouse-cold") == "1"
                async for line in response.content:
                    if line.startswith(b"data: [DONE]"):
                        done = True
                    elif line.startswith(b"data: ") and one.first_s is None and _has_text(line):
                        one.first_s = time.monotonic()
        except (aiohttp.ClientError, TimeoutError) as error:
            one.wrong = f"{type(error).__name__} {error}"
            return
        if not done or one.first_s is None:
            one.wrong = "it ended without its end"


def _has_text(line: bytes) -> bool:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
