"""Tokens reach the client as they come, for every model and profile."""

from __future__ import annotations

import time

import aiohttp
import pytest

from tests.stack.stack import Stack

TRIES = 3
MODELS = ("house-chat:latency", "house-chat:throughput", "depot-chat", "yard-chat", "kiosk-chat")


@pytest.mark.parametrize("model", MODELS)
async def test_the_first_tokens_come_long_before_the_last(stack: Stack, model: str) -> None:
    """An answer kept back until it is whole comes all at once each time; one try is spoilt where this process
    stood still while it came."""
    for _ in range(TRIES):
        arrived_s = await times_of_tokens(stack, model)
        assert len(arrived_s) > 16
        if arrived_s[8] < 0.5 * arrived_s[-1]:
            return
    raise AssertionError(f"half of the time had gone by when the ninth of {len(arrived_s)} pieces came")


async def times_of_tokens(stack: Stack, model: str) -> list[float]:
    """When each piece of a long answer came, from when the answer began, in seconds."""
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 300,
        "temperature": 1.0,
        "seed": 3,
    }
    async with (
        aiohttp.ClientSession(headers=stack.headers) as session,
        session.post(f"{stack.base_url}/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        began_s = time.monotonic()
        return [time.monotonic() - began_s async for line in answer.content if line.startswith(b"data: {")]
