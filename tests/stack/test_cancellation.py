"""A client that leaves frees its engine's slot: before the first token, streaming, or not streamed."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from tests.stack.stack import Stack

pytestmark = pytest.mark.timed

POLL_S = 0.05
"""The demo engines' cancellation_check_period_ms."""
MEASURING_S = 0.05
"""The engines' counters are refreshed every 10 ms, and read over HTTP from a busy machine."""
ALLOWED_S = POLL_S + 0.1 + MEASURING_S
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
    """Each slot is free in time; a machine that stood still for a moment gets a second try."""
    slowest_s = await slowest_of_50_that_leave(stack)
    if slowest_s > ALLOWED_S:
        slowest_s = await slowest_of_50_that_leave(stack)
    assert slowest_s <= ALLOWED_S


async def slowest_of_50_that_leave(stack: Stack) -> float:
    """Seconds until the slot is free by the engine's own count; of 50, the slowest is the 99th percentile.

    Where streams that stay were over before 50 had left, more leave of another hundred.
    """
    freed_s: list[float] = []
    for _ in range(4):
        freed_s += await freed_by_leaving(stack, 50 - len(freed_s))
        if len(freed_s) == 50:
            break
    assert len(freed_s) == 50
    print(f"slot free after: median {sorted(freed_s)[25] * 1e3:.0f} ms, p99 {max(freed_s) * 1e3:.0f} ms")
    return max(freed_s)


async def freed_by_leaving(stack: Stack, leaving: int) -> list[float]:
    """Of 100 streams so many leave, one after the other, while all others go on, which end well."""
    body = {
        "model": "house-chat:throughput",
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "temperature": 1.0,
        "max_tokens": 450,
        "min_tokens": 450,
    }
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=stack.headers, connector=connector) as session:
        await until_active(session, stack, 0, 20)
        answers = await asyncio.gather(
            *(session.post(f"{stack.base_url}/chat/completions", json=body) for _ in range(100))
        )
        await asyncio.gather(*(answer.content.readline() for answer in answers))
        staying = [asyncio.create_task(answer.read()) for answer in answers[leaving:]]
        freed_s: list[float] = []
        for left, answer in enumerate(answers[:leaving], start=1):
            started = time.monotonic()
            answer.close()
            while await active_requests(session, stack) > 100 - left:
                assert time.monotonic() - started < 5
                await asyncio.sleep(0.005)
            if any(task.done() for task in staying):  # the slot may be one of theirs
                for other in answers[left:leaving]:
                    other.close()
                break
            freed_s.append(time.monotonic() - started)
        texts = await asyncio.gather(*staying)
        assert all(b"[DONE]" in text and b'"finish_reason":"length"' in text for text in texts)
        await until_active(session, stack, 0, 5)
    return freed_s
