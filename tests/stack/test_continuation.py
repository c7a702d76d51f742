"""A stream whose Triton is killed under it reads as if nothing had happened, greedy and seeded exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from bench.chaos.streams import Ending, take
from tests.stack.stack import Stack
from tests.stack.test_faults import answers_again, kill

TOKENS = 300
"""Enough for a blow to come in time on a busy machine."""
PROMPTS = ("Tell me a long story.", "What is the house made of?", "Count to ten.", "Describe a train.")
Strike = Callable[[], object]


async def stream(
    session: aiohttp.ClientSession, stack: Stack, prompt: str, sampling: dict[str, Any], begun: Strike
) -> Ending:
    """One stream, read to its end; `begun` is called in the midst of it."""
    body = {
        "model": "house-chat:latency",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        **sampling,
    }
    ending, told = Ending(), False
    async with session.post(f"{stack.base_url}/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        with suppress(aiohttp.ClientPayloadError):  # an error event stands before it
            async for line in answer.content:
                take(ending, line.strip())
                if not told and len(ending.text) > 40:
                    told = True
                    begun()
    return ending


async def all_streams(stack: Stack, sampling: dict[str, Any], strike: Strike | None = None) -> list[Ending]:
    """A stream for every prompt; `strike` is called once, when the first is in the midst of its answer."""
    blows = [strike] if strike is not None else []

    def begun() -> None:
        if blows:
            blows.pop()()

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=stack.headers, timeout=timeout) as session:
        return await asyncio.gather(*(stream(session, stack, prompt, sampling, begun) for prompt in PROMPTS))


async def continued_streams(stack: Stack) -> float:
    """How many streams the gateway says to have continued, of all workers."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.origin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("enginehouse_migrations_total{"))


async def until_more_are_continued(stack: Stack, before: float) -> None:
    """The blow was in time. Metrics are written once a second."""
    for _ in range(50):
        if await continued_streams(stack) > before:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("every stream had ended before the blow")


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({"temperature": 0}, id="greedy"),
        pytest.param({"temperature": 1.0, "seed": 7}, id="seeded"),
    ],
)
async def test_a_continued_answer_is_that_of_an_unbroken_run(stack: Stack, sampling: dict[str, Any]) -> None:
    """Word for word, to its exact length."""
    await answers_again(stack, "house-chat:latency")
    whole = await all_streams(stack, sampling)
    assert {ending.tokens for ending in whole} == {TOKENS}
    port = stack.ready["triton"][0]["http"].rpartition(":")[2]
    victim = [s for s in stack.children("tritonserver", "--http-port") if any(port in w for w in s.cmdline())]
    before = await continued_streams(stack)
    continued = await all_streams(stack, sampling, lambda: kill(*victim))
    assert [ending.error for ending in continued] == [None] * len(PROMPTS)
    assert [ending.text for ending in continued] == [ending.text for ending in whole]
    assert all(ending.done and ending.finish == "length" for ending in continued)
    assert {ending.tokens for ending in continued} == {TOKENS}
    await until_more_are_continued(stack, before)
    await answers_again(stack, "house-chat:latency")
    await answers_again(stack, "yard-chat")
