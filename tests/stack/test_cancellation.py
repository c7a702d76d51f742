"""A client that leaves frees its engine's slot: before the first token, streaming, or not streamed."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.stack.stack import Stack

POLL_S = 0.1
"""The demo engines' cancellation_check_period_ms."""
LONG = {"temperature": 1.0, "max_tokens": 1500, "min_tokens": 1500}


async def active_requests(session: aiohttp.ClientSession, stack: Stack, model: str = "tensorrt_llm") -> int:
    """Requests in the bare engines, as their own metrics count them."""
    total = 0
    for server in stack.ready["triton"]:
        async with session.get(server["metrics"]) as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith("nv_trt_llm_request_metrics") and 'request_type="active"' in line:
                    total += int(float(line.rpartition(" ")[2]))
    return total


async def until_active(session: aiohttp.ClientSession, stack: Stack, wanted: int, timeout_s: float) -> float:
    """Seconds until exactly `wanted` requests are active."""
    started = time.monotonic()
    while (seen := await active_requests(session, stack)) != wanted:
        if time.monotonic() - started > timeout_s:
            raise AssertionError(f"{seen} requests active after {timeout_s:g} s, not {wanted}")
        await asyncio.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("stream", [True, False])
async def test_one_client_leaving_frees_its_slot(stack: Stack, stream: bool) -> None:
    """Streaming or not, within the engine's poll period."""
    body = {
        "model": "house-chat",
        "stream": stream,
        "messages": [{"role": "user", "content": "Go on."}],
        **LONG,
    }
    async with aiohttp.ClientSession(headers=stack.headers) as session:
        await until_active(session, stack, 0, 10)
        request = asyncio.create_task(session.post(f"{stack.base_url}/chat/completions", json=body))
        await until_active(session, stack, 1, 10)
        if stream:
            answer = await request
            await answer.content.readline()
            answer.close()
        else:
            request.cancel()
        await until_active(session, stack, 0, 5)


async def test_half_of_100_streams_leave(stack: Stack) -> None:
    """The engines get rid of exactly those, in time; the others go on and end well."""
    body = {
        "model": "house-chat:throughput",
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 1.0,
        "max_tokens": 400,
        "min_tokens": 400,
        "stream_options": {"include_usage": True},
    }
    async with aiohttp.ClientSession(
        headers=stack.headers, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        await until_active(session, stack, 0, 10)
        answers = await asyncio.gather(
            *(session.post(f"{stack.base_url}/chat/completions", json=body) for _ in range(100))
        )
        await asyncio.gather(*(answer.content.readline() for answer in answers[:50]))
        for answer in answers[:50]:
            answer.close()
        stats = await asyncio.gather(*(answer.read() for answer in answers[50:]))
        assert all(b"[DONE]" in text and b'"finish_reason":"length"' in text for text in stats)
        await until_active(session, stack, 0, 5)
