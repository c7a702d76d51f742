"""Streams: many at once, each read to whatever end it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

STREAMS = 50
TOKENS = 150
"""Of each; fifty together take several seconds for them, so that a blow comes in their midst."""
OWN_LENGTH = frozenset({"depot-chat", "kiosk-chat"})
"""Models whose engines take no `min_tokens`."""
END_WITHIN_S = 120.0


@dataclass(slots=True)
class Ending:
    """How one stream ended for its client."""

    text: str = ""
    prompt_tokens: int | None = None
    tokens: int | None = None
    """`usage.completion_tokens`."""
    done: bool = False
    """`[DONE]` came."""
    finish: str | None = None
    error: str | None = None
    """Code of an error event or answer."""
    broken: bool = False
    """The connection ended within the answer."""
    longest_gap_s: float = 0.0
    """Between two lines, once the first had come."""

    @property
    def well(self) -> bool:
        return self.done and self.finish is not None

    @property
    def falsely_clean(self) -> bool:
        """It looks complete without its end."""
        return self.done and self.finish is None

    @property
    def silent(self) -> bool:
        """Neither a clean end nor a word of why."""
        return not self.done and self.error is None and not self.broken


def body(model: str, tokens: int = TOKENS, content: str = "Tell me a long story.") -> dict[str, Any]:
    """A streamed chat of exactly so many tokens, where the model's engine can be told so."""
    asked: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": content}],
        "temperature": 1.0,
        "max_tokens": tokens,
    }
    return asked if model.partition(":")[0] in OWN_LENGTH else {**asked, "min_tokens": tokens}


async def stream(
    session: aiohttp.ClientSession, base_url: str, asked: dict[str, Any], begun: asyncio.Event
) -> Ending:
    """One stream; `begun` is set with its first text, or its end."""
    ending, last_s = Ending(), None
    try:
        async with session.post(f"{base_url}/chat/completions", json=asked) as answer:
            if answer.status != 200:
                ending.error = (await answer.json())["error"]["code"]
                return ending
            async for line in answer.content:
                now_s = time.monotonic()
                if last_s is not None:
                    ending.longest_gap_s = max(ending.longest_gap_s, now_s - last_s)
                take(ending, line.strip())
                if ending.text:
                    last_s = now_s
                    begun.set()
    except aiohttp.ClientError:
        ending.broken = True
    finally:
        begun.set()
    return ending


def take(ending: Ending, line: bytes) -> None:
    """One line of a stream."""
    if line == b"data: [DONE]":
        ending.done = True
    elif line.startswith(b"data: "):
        event = msgspec.json.decode(line[6:])
        if "error" in event:
            ending.error = event["error"]["code"]
        elif event.get("usage"):
            ending.prompt_tokens = event["usage"]["prompt_tokens"]
            ending.tokens = event["usage"]["completion_tokens"]
        elif event["choices"]:
            ending.text += event["choices"][0]["delta"].get("content") or ""
            ending.finish = event["choices"][0]["finish_reason"] or ending.finish


def session_of(headers: dict[str, str]) -> aiohttp.ClientSession:
    """A connection for each request, so that they spread over the workers."""
    return aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=END_WITHIN_S),
    )


async def while_streaming(
    base_url: str, headers: dict[str, str], model: str, strike: Callable[[], None]
) -> list[Ending]:
    """Run the streams, strike when half have begun, and wait for every ending."""
    begun = [asyncio.Event() for _ in range(STREAMS)]
    async with session_of(headers) as session:
        tasks = [asyncio.create_task(stream(session, base_url, body(model), event)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun[: STREAMS // 2]))
        strike()
        return await asyncio.gather(*tasks)


async def answers_again(base_url: str, headers: dict[str, str], model: str, within_s: float = 60.0) -> float:
    """Seconds until the model answers. Raises TimeoutError."""
    began_s = time.monotonic()
    asked = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    async with aiohttp.ClientSession(headers=headers) as session:
        while time.monotonic() - began_s < within_s:
            try:
                async with session.post(f"{base_url}/chat/completions", json=asked) as answer:
                    if answer.status == 200:
                        return time.monotonic() - began_s
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{model} does not answer within {within_s:g} s")
