"""Tokens reach the client as they come, for every model and profile."""

from __future__ import annotations

import time

import aiohttp
import pytest

from tests.stack.stack import Stack

pytestmark = pytest.mark.timed

MODELS = ("house-chat:latency", "house-chat:throughput", "depot-chat", "yard-chat", "kiosk-chat")


@pytest.mark.parametrize("model", MODELS)
async def test_the_first_tokens_come_long_before_the_last(stack: Stack, model: str) -> None:
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
        arrived_s = [
            time.monotonic() - began_s async for line in answer.content if line.startswith(b"data: {")
        ]
    assert len(arrived_s) > 8
    assert arrived_s[len(arrived_s) // 2] < 0.85 * arrived_s[-1]
