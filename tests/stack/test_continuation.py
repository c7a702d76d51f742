"""A stream whose Triton is killed under it reads as if nothing had happened, greedy and seeded exactly."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import aiohttp
import pytest

from tests.stack.stack import Stack
from tests.stack.test_faults import Ending, answers_again, kill, take, while_streaming

TOKENS = 200
PROMPTS = ("Tell me a long story.", "What is the house made of?", "Count to ten.", "Describe a train.")


async def stream(
    session: aiohttp.ClientSession, stack: Stack, prompt: str, sampling: dict[str, Any], begun: asyncio.Event
) -> Ending:
    """One stream, read to its end."""
    body = {
        "model": "house-chat:latency",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        **sampling,
    }
    ending = Ending()
    async with session.post(f"{stack.base_url}/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            take(ending, line.strip())
            if len(ending.text) > 40:
                begun.set()
    return ending


async def all_streams(stack: Stack, sampling: dict[str, Any], strike: Any = None) -> list[Ending]:
    """A stream for every prompt; `strike` comes when one is in the midst of its answer."""
    begun = [asyncio.Event() for _ in PROMPTS]
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=stack.headers, timeout=timeout) as session:
        tasks = [
            asyncio.create_task(stream(session, stack, prompt, sampling, event))
            for prompt, event in zip(PROMPTS, begun, strict=True)
        ]
        waits = [asyncio.create_task(event.wait()) for event in begun]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if strike is not None:
            in_the_midst = [
                event.is_set() and not task.done() for event, task in zip(begun, tasks, strict=True)
            ]
            assert any(in_the_midst), "no stream was under way"
            strike()
        endings = await asyncio.gather(*tasks)
        await asyncio.gather(*waits)
        return endings


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 1.0, "seed": 7}], ids=["greedy", "seeded"]
)
async def test_a_continued_answer_is_that_of_an_unbroken_run(stack: Stack, sampling: dict[str, Any]) -> None:
    """Word for word, to its exact length."""
    await answers_again(stack, "house-chat:latency")
    whole = await all_streams(stack, sampling)
    assert {ending.tokens for ending in whole} == {TOKENS}
    port = stack.ready["triton"][0]["http"].rpartition(":")[2]
    victim = [s for s in stack.children("tritonserver", "--http-port") if any(port in w for w in s.cmdline())]
    continued = await all_streams(stack, sampling, lambda: kill(*victim))
    assert [ending.text for ending in continued] == [ending.text for ending in whole]
    assert all(ending.done and ending.finish == "length" for ending in continued)
    assert {ending.tokens for ending in continued} == {TOKENS}
    await answers_again(stack, "house-chat:latency")
    await answers_again(stack, "yard-chat")


async def test_a_text_lanes_stream_ends_with_an_error_event(stack: Stack) -> None:
    """Never with `[DONE]`, nor with a finish reason."""
    await answers_again(stack, "yard-chat")
    port = stack.ready["triton"][0]["http"].rpartition(":")[2]
    victim = [s for s in stack.children("tritonserver", "--http-port") if any(port in w for w in s.cmdline())]
    endings = await while_streaming(
        stack, "yard-chat", lambda: [one.send_signal(signal.SIGKILL) for one in victim]
    )
    broken = [ending for ending in endings if ending.text and ending.finish is None]
    assert broken, "every stream had ended before the blow"
    assert all(ending.error and not ending.done for ending in broken)
    await answers_again(stack, "yard-chat")
