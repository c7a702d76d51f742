"""`/kv_cache_events` of the OpenAI-HTTP emulator: as `trtllm-serve`, whose reading takes the events away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from emulator.engine.kv_events import KvEventBuffer

_PATIENCE_S = 2.0
_POLL_S = 0.02


def kv_cache_events(buffer: KvEventBuffer) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler that tells what an engine's cache did; it waits a while for a first event."""

    async def handle(_: web.Request) -> web.Response:
        events = buffer.drain()
        for _round in range(round(_PATIENCE_S / _POLL_S)):
            if events:
                break
            await asyncio.sleep(_POLL_S)
            events = buffer.drain()
        return web.json_response(events)

    return handle
