"""Leaving: clients go in the middle of their streams; when is the engine's slot free, by its own count?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from bench.build import BenchError
from bench.chaos.streams import body, session_of
from bench.up import Up

MODEL = "house-chat:throughput"
STREAMS, LEAVING = 100, 50
TOKENS = 450
POLL_S = 0.05
"""The demo engines' cancellation_check_period_ms."""
STATS_PERIOD_MS = 10
"""How often the engines' counters are refreshed; beside it, they are read over HTTP every 5 ms."""
MEASURING_S = 0.05
BAR_S = POLL_S + 0.1 + MEASURING_S


async def leaving(stack: Up) -> dict[str, Any]:
    """Of 100 streams 50 leave, one after the other, while all others go on and end well."""
    freed_s: list[float] = []
    whole = 0
    for _ in range(4):  # where those that stay were over too early, more leave of another hundred
        freed, ended = await _freed(stack, LEAVING - len(freed_s))
        freed_s += freed
        whole += ended
        if len(freed_s) == LEAVING:
            break
    freed_s.sort()
    return {
        "left": len(freed_s),
        "stayed_and_ended_well": whole,
        "slot_free_p50_ms": round(freed_s[len(freed_s) // 2] * 1e3, 1),
        "slot_free_p99_ms": round(freed_s[-1] * 1e3, 1),
        "bar_ms": round(BAR_S * 1e3),
        "still_active": await active(stack),
        "ok": len(freed_s) == LEAVING and freed_s[-1] <= BAR_S and await active(stack) == 0,
    }


async def _freed(stack: Up, leaving: int) -> tuple[list[float], int]:
    """Seconds until each slot was free, and how many of those that stayed ended well."""
    async with session_of(stack.headers) as session, aiohttp.ClientSession() as counting:
        await _until_active(counting, stack, 0)
        asked = body(MODEL, TOKENS)
        answers = await asyncio.gather(
            *(session.post(f"{stack.base_url}/chat/completions", json=asked) for _ in range(STREAMS))
        )
        await asyncio.gather(*(answer.content.readline() for answer in answers))
        staying = [asyncio.create_task(answer.read()) for answer in answers[leaving:]]
        freed_s: list[float] = []
        for left, answer in enumerate(answers[:leaving], start=1):
            began_s = time.monotonic()
            answer.close()
            while await active_requests(counting, stack.ready) > STREAMS - left:
                if time.monotonic() - began_s > 5:
                    raise BenchError("a slot is not free 5 s after its client left")
                await asyncio.sleep(0.005)
            if any(task.done() for task in staying):  # the slot may be one of theirs
                for other in answers[left:leaving]:
                    other.close()
                break
            freed_s.append(time.monotonic() - began_s)
        texts = await asyncio.gather(*staying)
        well = sum(b"[DONE]" in text and b'"finish_reason":"length"' in text for text in texts)
        if well < len(texts):
            raise BenchError(f"{len(texts) - well} streams that stayed did not end well")
        await _until_active(counting, stack, 0)
    return freed_s, well


async def active(stack: Up) -> int:
    """Requests in the bare engines."""
    async with aiohttp.ClientSession() as session:
        return await active_requests(session, stack.ready)


async def active_requests(session: aiohttp.ClientSession, ready: dict[str, Any]) -> int:
    """Requests in the bare engines of a ready file's Tritons, as their own metrics count them."""
    total = 0
    for server in ready["triton"]:
        async with session.get(server["metrics"]) as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith("nv_trt_llm_request_metrics") and 'request_type="active"' in line:
                    total += int(float(line.rpartition(" ")[2]))
    return total


async def _until_active(
    session: aiohttp.ClientSession, stack: Up, wanted: int, within_s: float = 20.0
) -> None:
    began_s = time.monotonic()
    while (seen := await active_requests(session, stack.ready)) != wanted:
        if time.monotonic() - began_s > within_s:
            raise BenchError(f"{seen} requests active after {within_s:g} s, not {wanted}")
        await asyncio.sleep(0.01)
