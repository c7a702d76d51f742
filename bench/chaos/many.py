"""Many: 200 streams at once of every demo model, each with the usage that its model's tokenizer counts."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from bench.chaos.streams import Ending, body, session_of, stream
from bench.up import Up

STREAMS = 200
TOKENS = 24
SKIPPED = frozenset({"house-vectors"})


async def many(stack: Up) -> dict[str, Any]:
    """Every chat model of the ready file, one after the other."""
    models = [name for name in stack.ready["models"] if name not in SKIPPED]
    told = {model: await _of(stack, model) for model in models}
    return {"models": told, "ok": all(one["ok"] for one in told.values())}


async def _of(stack: Up, model: str) -> dict[str, Any]:
    async with session_of(stack.headers) as session:
        prompts = [f"Count from {number} upwards." for number in range(STREAMS)]
        counted = await _prompt_tokens(session, stack, model, prompts)
        endings: list[Ending] = await asyncio.gather(
            *(
                stream(
                    session,
                    stack.base_url,
                    {**body(model, TOKENS, prompt), "min_tokens": None},
                    asyncio.Event(),
                )
                for prompt in prompts
            )
        )
    well = sum(ending.well for ending in endings)
    equal = sum(ending.prompt_tokens == count for ending, count in zip(endings, counted, strict=True))
    in_bounds = sum(1 <= (ending.tokens or 0) <= TOKENS for ending in endings)
    return {
        "streams": len(endings),
        "ended_well": well,
        "prompt_tokens_as_counted": equal,
        "ok": well == in_bounds == len(endings) == equal,
    }


async def _prompt_tokens(
    session: aiohttp.ClientSession, stack: Up, model: str, prompts: list[str]
) -> list[int]:
    """What `POST /tokenize` counts."""
    counts = []
    for prompt in prompts:
        asked = {"model": model, "messages": [{"role": "user", "content": prompt}]}
        async with session.post(f"{stack.base_url.removesuffix('/v1')}/tokenize", json=asked) as answer:
            answer.raise_for_status()
            counts.append((await answer.json())["count"])
    return counts
