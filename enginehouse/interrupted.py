"""Interrupted: SIGTERM ends a command as Ctrl-C does, so that it puts back what it has changed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def until_done(work: Coroutine[Any, Any, T]) -> T:
    """Its result. Raises KeyboardInterrupt once it has ended on a SIGTERM."""
    task = asyncio.ensure_future(work)
    asked = False

    def end() -> None:
        nonlocal asked
        asked = True
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        return await task
    except asyncio.CancelledError:
        if asked:
            raise KeyboardInterrupt from None
        raise
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        loop.remove_signal_handler(signal.SIGTERM)
