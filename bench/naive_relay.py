"""The relay everyone writes first: aiohttp server, aiohttp client, JSON parsed and dumped per event.

The yardstick of the benchmark. It does none of a gateway's work (no keys, routing, limits, traces); uvloop,
a frozen garbage collector and an unlimited connection pool are on, so that it loses by its shape and not by
a default.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    """Send the body on and the answer back; events one by one."""
    body = await request.json()
    async with request.app[SESSION].post(request.app[UPSTREAM] + request.path, json=body) as answer:
        if answer.content_type != "text/event-stream":
            return web.json_response(await answer.json(), status=answer.status)
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for data in events(answer.content):
            await response.write(b"data: " + _again(data) + b"\n\n")
        await response.write_eof()
        return response


async def events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """What follows `data: ` in each event. Reads what is there: less work than reading line by line."""
    partial = b""
    async for received in content.iter_any():
        *complete, partial = (partial + received).split(b"\n\n")
        for event in complete:
            yield event[6:]


def _again(data: bytes) -> bytes:
    return data if data == b"[DONE]" else json.dumps(json.loads(data)).encode()


async def session(app: web.Application) -> AsyncIterator[None]:
    """The one client session, for the life of the process."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as opened:
        app[SESSION] = opened
        gc.freeze()
        yield


async def healthy(_: web.Request) -> web.Response:
    return web.Response()


def application(upstream: str) -> web.Application:
    app = web.Application(client_max_size=64 << 20)
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(session)
    app.router.add_get("/healthz", healthy)
    app.router.add_post("/{path:.*}", relay)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    uvloop.install()
    web.run_app(
        application(options.upstream), host="127.0.0.1", port=options.port, access_log=None, print=None
    )


if __name__ == "__main__":
    main()
