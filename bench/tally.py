"""Tally: an OpenAI-HTTP model server that counts what it is asked, prompt by prompt.

It answers chats whole, after `delay_s` or once `gate` is open. What begins with `live` counts as
interactive, everything else as a row of a batch job.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Self

from aiohttp import web

LIVE = "live"
MODEL = "tally"


class Tally:
    """Serves on a free port of the loopback within `async with`."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.rows = self.live = 0
        """In flight now."""
        self.most_rows = 0
        """Rows in flight at once since `watch`."""
        self.status = 200
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def watch(self) -> None:
        """Begin to look for the most rows at once."""
        self.most_rows = self.rows

    async def _chat(self, request: web.Request) -> web.Response:
        prompt = str((await request.json())["messages"][-1]["content"])
        self.asked[prompt] += 1
        is_live = prompt.startswith(LIVE)
        self.live += is_live
        self.rows += not is_live
        self.most_rows = max(self.most_rows, self.rows)
        try:
            await asyncio.sleep(self.delay_s)
            await self.gate.wait()
        finally:
            self.live -= is_live
            self.rows -= not is_live
        self.answered[prompt] += 1
        if self.status != 200:
            return web.json_response({"error": {"message": "as told"}}, status=self.status)
        return web.json_response(_answer(prompt))


def _answer(prompt: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"heard {prompt}", "refusal": None}
    return {
        "id": "chatcmpl-tally",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
