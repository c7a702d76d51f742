"""What every test runs on: the event loop that the processes use."""

from __future__ import annotations

import pytest
import uvloop


@pytest.fixture(scope="session")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """uvloop, as in production: its transports differ from asyncio's in details that matter."""
    return uvloop.EventLoopPolicy()
