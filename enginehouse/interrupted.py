"""Interrupted: a command that is ended puts back what it has changed, and says what it leaves."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def says_what_is_left(left: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, one sentence on stderr, made once all inside has ended; the command still ends with 130."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped: {left()}\n")
        raise


async def until_done(work: Coroutine[Any, Any, T]) -> T:
    """Its result; SIGTERM ends it as Ctrl-C does. Raises KeyboardInterrupt once it has ended on that."""
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
