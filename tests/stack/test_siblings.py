"""Choices of one long prompt, counted at the engine: the prompt is computed once."""

from __future__ import annotations

import asyncio

import pytest

from tests.stack.stack import Stack, wait_until
from tests.stack.test_usage import TOKENS_PER_BLOCK, reused_blocks

CHOICES = 8
TOPIC = "The engine house stands by the lock, and its beam engine lifts water to the summit level. "


@pytest.mark.parametrize("stream", [True, False])
async def test_eight_choices_compute_their_prompt_once(stack: Stack, stream: bool) -> None:
    """Each of the other seven reuses all whole blocks of it."""
    text = f"Notes that no other test sends, {stream}. " + TOPIC * 45
    before = await asyncio.to_thread(reused_blocks, stack)
    answer = await stack.async_client().chat.completions.create(
        model="house-chat:balanced",
        messages=[{"role": "user", "content": text}],
        n=CHOICES,
        max_tokens=2,
        stream=stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )
    usage = None if stream else answer.usage
    if stream:
        async for chunk in answer:
            usage = chunk.usage or usage
    assert usage is not None
    assert usage.prompt_tokens > 900
    wanted = (CHOICES - 1) * ((usage.prompt_tokens - 1) // TOKENS_PER_BLOCK)
    await asyncio.to_thread(
        wait_until, lambda: reused_blocks(stack) - before >= wanted, 5, f"{wanted} blocks are reused"
    )
