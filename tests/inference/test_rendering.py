"""Whatever a template does, other requests go on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from inference import chat_template, rendering
from inference.chat_template import ChatTemplate, RenderTimeoutError
from inference.errors import RequestRefusedError
from inference.rendering import ON_LOOP_CHARACTERS, ON_LOOP_MESSAGES, ON_LOOP_TOOLS, Templates
from tests.inference.test_chat_template import ENDLESS, GROWING

HELLO = [{"role": "user", "content": "Hello"}]
SPIN = "{% for i in range(n) %}{% for j in range(1000) %}{% endfor %}{% endfor %}done"
LONGEST_GAP_S = 0.5
"""Far below the seconds that a rendering takes, far above what a shared machine adds."""


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Another request on the same loop: when it got on, by the CPU time of this process.

    What other processes of a busy machine take is no stall.
    """
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.process_time())
            await asyncio.sleep(0.001)

    task = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield ticks
    finally:
        ticks.append(time.process_time())
        task.cancel()


def longest_gap_s(ticks: list[float]) -> float:
    return max(after - before for before, after in pairwise(ticks))


@pytest.mark.parametrize("source", [*ENDLESS, *GROWING])
async def test_no_template_stalls_the_event_loop(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(chat_template, "RENDER_TIMEOUT_S", 0.6)
    async with ticking() as ticks:
        with pytest.raises(Exception, match=r"."):
            await Templates(ChatTemplate(source)).render_async(HELLO, None, None)
    assert longest_gap_s(ticks) < LONGEST_GAP_S


async def test_a_template_of_seconds_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up at its limit; meanwhile others get on every few milliseconds."""
    monkeypatch.setattr(chat_template, "RENDER_TIMEOUT_S", 1.5)
    async with ticking() as ticks:
        with pytest.raises(RenderTimeoutError, match=r"1\.5 s"):
            await Templates(ChatTemplate(SPIN)).render_async(HELLO, None, None, n=100_000)
    assert longest_gap_s(ticks) < LONGEST_GAP_S
    assert len(ticks) > 50


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Names of the threads that rendered, in order."""
    names: list[str] = []
    render = ChatTemplate.render

    def noting(self: ChatTemplate, *args: Any, **names_: Any) -> str:
        names.append(threading.current_thread().name.partition("_")[0])
        return render(self, *args, **names_)

    with monkeypatch.context() as patch:
        patch.setattr(ChatTemplate, "render", noting)
        yield names


async def test_a_slow_template_is_not_tried_on_the_loop_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until some time has passed."""
    monkeypatch.setattr(rendering, "ON_LOOP_S", 0.001)
    templates = Templates(ChatTemplate(SPIN))
    with ThreadPoolExecutor(1, "pool") as pool, recorded(monkeypatch) as threads:
        assert await templates.render_async(HELLO, None, pool, n=100) == "done"
        assert threads == ["MainThread", "pool"]
        assert await templates.render_async(HELLO, None, pool, n=0) == "done"
        assert threads == ["MainThread", "pool", "pool"]
        monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + rendering.SLOW_FOR_S)
        assert await templates.render_async(HELLO, None, pool, n=0) == "done"
        assert threads == ["MainThread", "pool", "pool", "MainThread"]


@pytest.mark.parametrize(
    ("messages", "tools", "thread"),
    [
        (HELLO, None, "MainThread"),
        (HELLO * ON_LOOP_MESSAGES, [{}], "MainThread"),
        (HELLO * (ON_LOOP_MESSAGES + 1), None, "pool"),
        ([{"role": "user", "content": "x" * (ON_LOOP_CHARACTERS + 1)}], None, "pool"),
        ([{"role": "assistant", "content": None}], None, "MainThread"),
        (HELLO, [{}] * (ON_LOOP_TOOLS + 1), "pool"),
    ],
)
async def test_big_conversations_are_rendered_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, messages: list[dict[str, Any]], tools: list[Any] | None, thread: str
) -> None:
    with ThreadPoolExecutor(1, "pool") as pool, recorded(monkeypatch) as threads:
        template = ChatTemplate("{% for m in messages %}{{ m.role }}{% endfor %}")
        await Templates(template).render_async(messages, tools, pool)
    assert threads == [thread]


async def test_a_refusal_in_a_thread_is_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}")
    with pytest.raises(RequestRefusedError, match="one at a time") as caught:
        await Templates(template).render_async(HELLO * 100, None, None)
    assert caught.value.param == "messages"
