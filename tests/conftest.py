"""What every test runs on: the event loop that the processes use."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """uvloop, as in production: its transports differ from asyncio's in details that matter."""
    return {"uvloop": uvloop.new_event_loop}
