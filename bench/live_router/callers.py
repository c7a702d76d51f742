"""Requests: streamed completions with an exact number of tokens, each timed and checked for being whole."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from bench.live_router.engines import WORD
from bench.live_router.fleet import GATEWAYS, MODEL, Fleet
from bench.live_router.workload import FIRST_ID, IDS

_DECISION = re.compile(r"endpoint=([^@;]+)[^;]*; policy=([^;]*);")
PROFILE = "balanced"


@dataclass(slots=True)
class Outcome:
    """How one request fared; times of `time.monotonic`."""

    sent_s: float
    gateway: int
    ended_s: float = 0.0
    first_s: float | None = None
    last_s: float = 0.0
    """Of its last token."""
    deployment: str = ""
    """Where it went, by the gateway's own word."""
    policy: str = ""
    wrong: str | None = None
    """What was not as it has to be; None: it was answered whole."""

    @property
    def ttft_s(self) -> float:
        """From when it was sent; of a request that was answered."""
        assert self.first_s is not None
        return self.first_s - self.sent_s


class Caller:
    """Sends a tenant's requests, each to a gateway drawn at random, as a plain load balancer would."""

    def __init__(
        self, fleet: Fleet, tenant: str, seed: int = 0, gateways: Sequence[int] = range(GATEWAYS)
    ) -> None:
        self._fleet = fleet
        self._gateways = gateways
        self._random = Random(seed)
        self._headers = {"Authorization": f"Bearer {fleet.keys[tenant]}", "x-enginehouse-explain": "1"}

    def prompt(self, tokens: int) -> tuple[int, ...]:
        """One that nobody has sent before."""
        return tuple(self._random.choices(range(FIRST_ID, FIRST_ID + IDS), k=tokens))

    async def ask(
        self, prompt_ids: Sequence[int], tokens: int, due_s: float | None = None, profile: str = PROFILE
    ) -> Outcome:
        """One request, checked. `due_s`: when it should have been sent, and is timed from."""
        body = {
            "model": f"{MODEL}:{profile}",
            "prompt": list(prompt_ids),
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        outcome = Outcome(time.monotonic() if due_s is None else due_s, self._random.choice(self._gateways))
        try:
            async with self._fleet.session.post(
                f"{self._fleet.gateways[outcome.gateway]}/v1/completions", json=body, headers=self._headers
            ) as answer:
                if answer.status != 200:
                    outcome.wrong = f"status {answer.status}: {(await answer.text())[:200]}"
                else:
                    _note_decision(outcome, answer.headers.get("x-enginehouse-decision", ""))
                    await _read(answer, outcome, tokens)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome.wrong = f"{type(error).__name__}: {error}"
        outcome.ended_s = time.monotonic()
        return outcome


class Load:
    """Clients that ask again as soon as they are answered; the block ends when each has its last answer."""

    def __init__(self, caller: Caller, clients: int, prompt_tokens: int, tokens: int) -> None:
        self.outcomes: list[Outcome] = []
        """Of the requests that have ended."""
        self._stopping = False
        self._ended = asyncio.Event()
        self._clients = [
            asyncio.create_task(self._client(caller, prompt_tokens, tokens)) for _ in range(clients)
        ]

    async def _client(self, caller: Caller, prompt_tokens: int, tokens: int) -> None:
        while not self._stopping:
            outcome = await caller.ask(caller.prompt(prompt_tokens), tokens)
            self.outcomes.append(outcome)
            self._ended.set()
            if outcome.wrong is not None:
                await asyncio.sleep(0.1)  # what fails at once must not be asked for without pause

    async def until(self, true: Callable[[], bool], within_s: float) -> None:
        """Returns when the end of a request has made it true, or after `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not true():
                    self._ended.clear()
                    await self._ended.wait()

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stopping = True
        if error is not None:
            for client in self._clients:
                client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=error is not None)


def wrongs(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """What went wrong, and how often."""
    return dict(Counter(one.wrong for one in outcomes if one.wrong is not None))


def _note_decision(outcome: Outcome, decision: str) -> None:
    found = _DECISION.search(decision)
    if found is None:
        outcome.wrong = f"no decision told: {decision!r}"
    else:
        outcome.deployment, outcome.policy = found[1], found[2]


async def _read(answer: aiohttp.ClientResponse, outcome: Outcome, tokens: int) -> None:
    text, finish, counted, done = "", None, None, False
    async for line in answer.content:
        if not line.startswith(b"data: "):
            continue
        now_s = time.monotonic()
        if line.startswith(b"data: [DONE]"):
            done = True
            continue
        event: dict[str, Any] = json.loads(line[6:])
        if "error" in event:
            outcome.wrong = f"error event: {event['error'].get('code')}"
            return
        if event.get("usage"):
            counted = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            if choice["text"]:
                text += choice["text"]
                outcome.first_s = outcome.first_s or now_s
                outcome.last_s = now_s
            finish = choice["finish_reason"] or finish
    seen = text.count(WORD)
    if (seen, counted, finish, done) != (tokens, tokens, "length", True):
        outcome.wrong = outcome.wrong or (
            f"incomplete: {seen} of {tokens} tokens, usage {counted}, finish {finish}, done {done}"
        )
