"""PushResponse over a real connection: framing, keep-alive, slow clients and broken ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from gateway.streaming.client import PushResponse

Write = Callable[[PushResponse], Awaitable[None]]
HIGH_WATER = 64 * 1024


@asynccontextmanager
async def serving(write: Write, peers: set[object] | None = None) -> AsyncIterator[tuple[str, int]]:
    """A server that answers every request by `write`; gives host and port. `peers` collects connections."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = PushResponse(request, b"x-request-id: 1\r\n", HIGH_WATER)
        if peers is not None and request.transport is not None:
            peers.add(request.transport.get_extra_info("peername"))
        await write(response)
        return response

    server = web.Server(handle, handler_cancellation=True)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0]
    finally:
        await runner.cleanup()


async def test_streams_and_whole_answers_share_one_connection() -> None:
    """Every framing leaves the connection ready for the next request; empty pushes are nothing."""
    turn = 0

    async def write(response: PushResponse) -> None:
        nonlocal turn
        turn += 1
        if turn % 2:
            response.begin()
            for piece in (b"", b"data: 1\n\n", b"", b"data: 2\n\n"):
                response.push(piece)
                response.flush()
            response.flush()
            response.finish()
        else:
            response.respond(404, b"{}", headers=b"retry-after: 1\r\n")

    peers: set[object] = set()
    async with serving(write, peers) as (host, port), aiohttp.ClientSession() as session:
        for number in range(6):
            async with session.get(f"http://{host}:{port}/") as answer:
                body = await answer.read()
            if number % 2:
                assert (answer.status, body, answer.headers["retry-after"]) == (404, b"{}", "1")
            else:
                assert (answer.status, body) == (200, b"data: 1\n\ndata: 2\n\n")
                assert answer.headers["x-request-id"] == "1"
    assert len(peers) == 1


async def test_a_chunk_that_is_framed_already_goes_out_in_its_place() -> None:
    """First, after what waits to be flushed, and alone."""

    async def write(response: PushResponse) -> None:
        response.begin()
        response.pass_on(b"3\r\n1\n\n\r\n")
        response.push(b"2\n\n")
        response.pass_on(b"3\r\n3\n\n\r\n")
        response.pass_on(b"3\r\n4\n\n\r\n")
        response.finish()

    for version, expected in (
        (b"1.1", b"3\r\n1\n\n\r\n6\r\n2\n\n3\n\n\r\n3\r\n4\n\n\r\n0\r\n\r\n"),
        (b"1.0", b"1\n\n2\n\n3\n\n4\n\n"),
    ):
        async with serving(write) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/%b\r\nhost: x\r\nconnection: close\r\n\r\n" % version)
            async with asyncio.timeout(5):
                answer = await reader.read()
            writer.close()
        assert answer.partition(b"\r\n\r\n")[2] == expected


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]
)
async def test_clients_that_want_the_connection_closed(head: bytes) -> None:
    """HTTP/1.0 knows no chunks: its answer ends with the connection."""

    async def write(response: PushResponse) -> None:
        response.begin()
        response.push(b"data: 1\n\n")
        response.finish()

    async with serving(write) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
    _, _, body = answer.partition(b"\r\n\r\n")
    assert body == (b"data: 1\n\n" if b"1.0" in head else b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
    assert b"connection: close" in answer


async def test_a_broken_answer_is_broken_for_its_client() -> None:
    """What was pushed arrives, and then the client's HTTP library says that the body is incomplete."""

    async def write(response: PushResponse) -> None:
        response.begin()
        response.push(b"data: 1\n\n")
        response.break_off()

    async with (
        serving(write) as (host, port),
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}/") as answer,
    ):
        assert await answer.content.readline() == b"data: 1\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


class Upstream:
    """A call that counts its pauses."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def cancel(self) -> None: ...

    def pause(self) -> None:
        self.paused.set()

    def resume(self) -> None:
        self.resumed.set()


async def test_a_slow_client_pauses_the_call_and_a_reading_one_resumes_it() -> None:
    """Back-pressure reaches the model server's connection; nothing is lost."""
    upstream = Upstream()
    total = 64 * 1024 * 1024

    async def write(response: PushResponse) -> None:
        response.begin()
        response.feeds_from(upstream)
        for _ in range(total // 65536):
            response.push(b"~" * 65536)
            response.flush()
        await upstream.resumed.wait()
        response.finish()

    async with serving(write) as (host, port):
        reader, writer = await asyncio.open_connection(host, port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await upstream.paused.wait()
            assert not upstream.resumed.is_set()
            seen = 0
            while not upstream.resumed.is_set() or seen < total:
                data = await reader.read(1 << 20)
                assert data
                seen += data.count(b"~")
        writer.close()
    assert seen == total


async def test_writing_after_the_client_has_left_is_harmless() -> None:
    """Its task learns of it a moment later; a call may push meanwhile."""
    left = asyncio.Event()
    written = asyncio.Event()

    async def write(response: PushResponse) -> None:
        response.begin()
        response.push(b"data: 1\n\n")
        response.flush()
        try:
            await left.wait()
            await asyncio.sleep(5)
        finally:
            response.push(b"data: 2\n\n")
            response.flush()
            response.finish()
            written.set()

    async with serving(write) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(5):
            await reader.readline()
            writer.transport.abort()
            left.set()
            await written.wait()
