"""Rendering: which of a model's chat templates turns messages into a prompt, and where that is done.

Short conversations are rendered on the event loop, which they hold up for microseconds. Long ones, and those
of templates that were found slow, are rendered in a thread, which lets the event loop go first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from inference.chat_template import ChatTemplate, RenderTimeoutError

ON_LOOP_S = 0.02
"""Longest rendering on the event loop; past it, it is begun anew in a thread."""
SLOW_FOR_S = 60.0
"""How long a template that took too long is not tried on the event loop again."""
ON_LOOP_MESSAGES = 64
ON_LOOP_CHARACTERS = 64 * 1024
ON_LOOP_TOOLS = 32

Messages = Sequence[Mapping[str, Any]]


class Templates:
    """A model's templates: for plain chat, and where it has one for chat with tools."""

    def __init__(self, default: ChatTemplate, tool_use: ChatTemplate | None = None) -> None:
        self.default = default
        self.tool_use = tool_use
        self._slow_until_s = 0.0

    def choose(self, tools: Messages | None) -> ChatTemplate:
        """The template for a request with these `tools`."""
        return self.tool_use if tools and self.tool_use is not None else self.default

    def render(self, messages: Messages, tools: Messages | None = None, **names: Any) -> str:
        """The prompt, however long it takes up to the template's limit. Raises as `ChatTemplate.render`."""
        return self.choose(tools).render(messages, tools, **names)

    async def render_async(
        self, messages: Messages, tools: Messages | None, pool: ThreadPoolExecutor | None, **names: Any
    ) -> str:
        """As `render`; the event loop is not held up. `pool`: the threads; None: asyncio's own."""
        if time.monotonic() > self._slow_until_s and _is_short(messages, tools):
            try:
                return self.render(messages, tools, limit_s=ON_LOOP_S, **names)
            except RenderTimeoutError:
                self._slow_until_s = time.monotonic() + SLOW_FOR_S
        render = partial(self.render, messages, tools, **names)
        return await asyncio.get_running_loop().run_in_executor(pool, render)


def _is_short(messages: Messages, tools: Messages | None) -> bool:
    if len(messages) > ON_LOOP_MESSAGES or (tools and len(tools) > ON_LOOP_TOOLS):
        return False
    return sum(len(message.get("content") or "") for message in messages) <= ON_LOOP_CHARACTERS
