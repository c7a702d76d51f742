"""What goes wrong on the way to Redis is told as one of ours, whoever found it."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from model_registry.connection import answer
from model_registry.errors import RegistryUnavailableError


def test_a_connection_that_was_closed_before_it_was_written_to() -> None:
    """As uvloop itself tells it, which redis-py passes on."""

    async def written() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.transport.abort()
            await asyncio.sleep(0)
            async with answer(5):
                writer.writelines([b"PING\r\n"])

    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(RegistryUnavailableError),
    ):
        runner.run(written())


async def test_other_errors_are_not_of_the_way() -> None:
    with pytest.raises(RuntimeError, match="ours"):
        async with answer(5):
            raise RuntimeError("ours")
