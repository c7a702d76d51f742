"""Clients: ask one model without a pause, half of them streaming, and tell every ending."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from bench.rollouts.cases import KINDS, MARK

CLIENTS = 12
MAX_TOKENS = 8


class Clients:
    """All clients of one model."""

    def __init__(self, session: aiohttp.ClientSession, gateways: Sequence[str], model: str, key: str) -> None:
        self._session = session
        self._gateways = itertools.cycle(gateways)
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}", "x-enginehouse-explain": "1"}
        self._numbers = itertools.count()
        self._stopped = False
        self.answered = 0
        self.by_candidate = 0
        """By the gateways' own account of each answer."""
        self.took_s: dict[str, list[float]] = {"candidate": [], "stable": []}
        self.failed: Counter[str] = Counter()
        self.moved = 0
        """Sent to the next gateway, since one ends or does not listen: as any load balancer does."""

    async def _ask(self) -> None:
        number = next(self._numbers)
        question = f"What is in {MARK.format(number % KINDS)}, room {number}?"
        stream = number % 2 == 0
        body = {
            "model": self._model,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": stream,
            "messages": [{"role": "user", "content": question}],
        }
        began_s = time.monotonic()
        url = f"{next(self._gateways)}/v1/chat/completions"
        try:
            async with self._session.post(url, json=body, headers=self._headers) as response:
                text = await response.text()
                decision = response.headers.get("x-enginehouse-decision", "")
        except aiohttp.ClientConnectorError:
            self.moved += 1
            await asyncio.sleep(0.01)
            return
        except aiohttp.ClientError as error:
            self.failed[type(error).__name__] += 1
            return
        if response.status == 503 and '"draining"' in text:
            self.moved += 1
            return
        if response.status != 200 or (stream and not text.endswith("data: [DONE]\n\n")):
            self.failed[f"{response.status} {text[-160:]}"] += 1
            return
        self.answered += 1
        self.by_candidate += "candidate-" in decision
        self.took_s["candidate" if "candidate-" in decision else "stable"].append(time.monotonic() - began_s)

    async def _go_on(self) -> None:
        while not self._stopped:
            await self._ask()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """While the block lasts."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._go_on())
            try:
                yield
            finally:
                self._stopped = True
