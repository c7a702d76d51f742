"""Plain requests are read here and all others by aiohttp, with the same outcome, on one connection."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway import connections
from gateway.connections import own_connections
from gateway.plain_requests import Handler, PlainReader, PlainRequest, by_request_line
from gateway.streaming.client import PushResponse

PATH = "/v1/x"
MAX_BODY_BYTES = 300_000
MAX_HEADER_BYTES = 8190
SHOWN = ("authorization", "x-api-key", "traceparent")
Answer = Callable[["web.BaseRequest | PlainRequest", bytes], Awaitable[None]]


async def nothing(_request: web.BaseRequest | PlainRequest, _body: bytes) -> None:
    """Answer at once."""


@asynccontextmanager
async def serving(
    meanwhile: Answer = nothing, *, plain: bool = True, **options: Any
) -> AsyncIterator[tuple[tuple[str, int], web.ServerRunner]]:
    """Answers with what it was sent and who read that, `meanwhile` being done before; address and runner."""

    async def handle(request: web.BaseRequest | PlainRequest) -> web.StreamResponse:
        read_here = isinstance(request, PlainRequest)
        body = request.body if isinstance(request, PlainRequest) else await request.read()
        response = PushResponse(request, b"", 65536)
        await meanwhile(request, body)
        said = {
            "plain": read_here,
            "headers": {name: request.headers.get(name) for name in SHOWN},
            "body": body.decode(errors="replace")[:100],
            "size": len(body),
        }
        response.respond(200, json.dumps(said).encode())
        return response

    server = web.Server(handle, handler_cancellation=True, **options)
    runner = web.ServerRunner(server, shutdown_timeout=5.0)
    await runner.setup()
    if plain:
        handlers: dict[str, Handler] = {PATH: handle}
        max_header_bytes = options.get("max_field_size", MAX_HEADER_BYTES)
        own_connections(server, handlers, MAX_BODY_BYTES, max_header_bytes)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0], runner
    finally:
        await runner.cleanup()


def request(body: bytes = b"{}", *headers: str, line: str = f"POST {PATH} HTTP/1.1") -> bytes:
    lines = [line, "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Status and body of the next answer; status 0: the connection ended."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, None
    while head.startswith(b"HTTP/1.1 100"):
        head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    body = await reader.readexactly(length)
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


async def said(address: tuple[str, int], *pieces: bytes, pause_s: float = 0.0) -> tuple[int, Any]:
    """The answer to what is sent in pieces, each on its way before the next."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        return await answer(reader)
    finally:
        writer.close()


AFTER_ONE = {
    "the same": request(b"{}", "Authorization: Bearer k"),
    "longer": request(b"x" * 1234, "Authorization: Bearer k"),
    "empty": request(b"", "Authorization: Bearer k"),
    "another key": request(b"{}", "Authorization: Bearer l"),
    "more headers": request(b"{}", "Authorization: Bearer k", "traceparent: 00-1"),
    "fewer headers": request(b"{}"),
    "other spelling": request(b"{}", "Authorization: Bearer k").replace(b"Content-Length", b"content-length"),
    "zeros": request(b"{}", "Authorization: Bearer k").replace(b"Length: 2", b"Length: 002"),
    "many zeros": request(b"{}", "Authorization: Bearer k").replace(
        b"Length: 2", b"Length: " + b"0" * 40 + b"2"
    ),
    "signed": request(b"{}", "Authorization: Bearer k").replace(b"Length: 2", b"Length: +2"),
    "no digits": request(b"{}", "Authorization: Bearer k").replace(b"Length: 2", b"Length: "),
    "other digits": request(b"{}", "Authorization: Bearer k").replace(b"Length: 2", "Length: ²".encode()),
    "length twice": request(b"{}", "Authorization: Bearer k", "Content-Length: 2"),
    "chunked, too": request(b"0\r\n\r\n", "Authorization: Bearer k", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("kind", AFTER_ONE)
async def test_a_head_is_taken_for_the_one_before_it_only_where_it_is(kind: str) -> None:
    found = []
    async with serving() as (here, _), serving(plain=False) as (aiohttps, _):
        for address in (here, aiohttps):
            reader, writer = await asyncio.open_connection(*address)
            for sent in (AFTER_ONE["the same"], AFTER_ONE[kind]):
                writer.write(sent)
                status, body = await answer(reader)
            found.append((status, {**body, "plain": None} if status == 200 else None))
            writer.close()
    assert found[0] == found[1]


async def test_a_known_head_may_come_in_pieces_or_with_the_next_request() -> None:
    same = AFTER_ONE["the same"]
    async with serving() as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        for pieces in ([same], [same[:-1], same[-1:]], [same[:40], same[40:]], [same * 3], [same]):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            for _ in range(max(1, sum(map(len, pieces)) // len(same))):
                status, found = await answer(reader)
                assert (status, found["body"], found["headers"]["authorization"]) == (200, "{}", "Bearer k")
        writer.close()


async def test_a_known_head_does_not_lift_the_limit_of_bodies() -> None:
    async with serving() as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request(b"x"))
        assert (await answer(reader))[1]["plain"] is True
        writer.write(request(b"x" * (MAX_BODY_BYTES + 1)))
        assert (await answer(reader))[1]["plain"] is False
        writer.close()


async def test_a_request_that_was_cut_leaves_its_connection_as_it_was() -> None:
    """One task answers all requests of a connection: ending one of them from without must not end that."""

    async def cut(_request: object, body: bytes) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        if body == b"cut":
            asyncio.get_running_loop().call_soon(task.cancel)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.uncancel()

    async with serving(cut) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        for body in (b"a", b"cut", b"b", b"cut", b"c"):
            writer.write(request(body))
            assert (await answer(reader))[1]["body"] == body.decode()
        writer.close()


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with serving() as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        for number in range(3):
            writer.write(request(b"%d" % number, "authorization: Bearer k", "Connection: Keep-Alive"))
            status, found = await answer(reader)
            assert (status, found["plain"], found["body"]) == (200, True, str(number))
            assert found["headers"] == {"authorization": "Bearer k", "x-api-key": None, "traceparent": None}
        writer.write(request(b"a", line="POST /elsewhere HTTP/1.1"))
        assert (await answer(reader))[1]["plain"] is False
        writer.write(request(b"b"))
        assert (await answer(reader))[1]["plain"] is False, "the connection is aiohttp's from there on"
        writer.close()


async def test_a_body_may_come_in_pieces() -> None:
    whole = request(b"x" * 200_000)
    head = whole.index(b"\r\n\r\n") + 4
    async with serving() as (address, _):
        for pieces in (
            (whole[:head], whole[head:]),
            (whole[: head + 5], whole[head + 5 : 90_000], whole[90_000:]),
        ):
            status, found = await said(address, *pieces, pause_s=0.02)
            assert (status, found["plain"], found["size"]) == (200, True, 200_000)


async def test_a_rest_that_is_late_is_waited_for_by_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_REST_WITHIN_S", 0.05)
    whole = request(b"x" * 1000)
    async with serving() as (address, _):
        status, found = await said(address, whole[:-500], whole[-500:], pause_s=0.2)
        assert (status, found["plain"], found["size"]) == (200, False, 1000)


async def test_a_connection_is_not_idle_while_its_request_comes() -> None:
    whole = request(b"x" * 1000)
    async with serving(keepalive_timeout=0.1) as (address, _):
        status, found = await said(address, whole[:-500], whole[-500:], pause_s=0.3)
        assert (status, found["plain"]) == (200, True)


NOT_PLAIN = {
    "chunked": request(line=f"POST {PATH} HTTP/1.1").replace(
        b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "packed": request(gzip.compress(b"{}"), "Content-Encoding: gzip"),
    "expects": request(b"{}", "Expect: 100-continue"),
    "closes": request(b"{}", "Connection: close"),
    "old": request(b"{}", line=f"POST {PATH} HTTP/1.0"),
    "another method": request(b"{}", line=f"PUT {PATH} HTTP/1.1"),
    "a query": request(b"{}", line=f"POST {PATH}?a=b HTTP/1.1"),
    "large head": request(b"{}", *(f"X-{n}: {'x' * 8200}" for n in range(3))),
    "many lines": request(b"{}", *(f"X-{n}: 1" for n in range(110))),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
async def test_what_is_not_plain_is_aiohttps(kind: str) -> None:
    async with serving(max_field_size=20_000, max_line_size=20_000) as (address, _):
        status, found = await said(address, NOT_PLAIN[kind])
        assert (status, found["plain"], found["body"]) == (200, False, "{}")


async def test_a_header_beyond_what_is_allowed_is_refused() -> None:
    async with serving(max_field_size=1024, max_line_size=1024) as (address, _):
        status, found = await said(address, request(b"{}", f"X-Long: {'x' * 500}"))
        assert (status, found["plain"]) == (200, True)
        status, found = await said(address, request(b"{}", f"X-Long: {'x' * 2000}"))
        assert (status, found["error"]["code"]) == (400, "invalid_http")


ODD = {
    "spaces": request(b"{}", "Authorization:  \t Bearer k \t"),
    "twice": request(b"{}", "Authorization: first", "AUTHORIZATION: second"),
    "not ascii": request(b"{}", "x-api-key: ké"),
    "no value": request(b"{}", "x-api-key:"),
    "folded": request(b"{}", "x-api-key: a\r\n b"),
    "a space before the colon": request(b"{}", "x-api-key : a"),
    "no name": request(b"{}", ": a"),
    "a bare LF": request(b"{}", "x-api-key: a\nx-other: b"),
    "a control character": request(b"{}", "x-api-key: a\x01b"),
    "NUL": request(b"{}", "x-api-key: a\x00b"),
    "no length": f"POST {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode(),
    "length twice": request(b"{}", "Content-Length: 2"),
    "other lengths": request(b"{}", "Content-Length: 3"),
    "length and chunked": request(b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "a signed length": request(b"{}").replace(b"Length: 2", b"Length: +2"),
    "no number": request(b"{}").replace(b"Length: 2", b"Length: two"),
    "a length of zeros mostly": request(b"{}").replace(b"Length: 2", b"Length: " + b"0" * 5000 + b"2"),
    "a huge length": request(b"{}").replace(b"Length: 2", b"Length: " + b"9" * 30),
    "no host": request(b"{}").replace(b"Host: h\r\n", b""),
    "two hosts": request(b"{}", "Host: i"),
    "two types": request(b"{}", "Content-Type: a", "content-type: a"),
    "a single one of answers": request(b"{}", "ETag: a", "ETag: b"),
    "upgrade": request(b"{}", "Connection: Upgrade", "Upgrade: h2c"),
}


@pytest.mark.parametrize("kind", ODD)
async def test_both_make_the_same_of_what_is_odd(kind: str) -> None:
    """A request that one of two readers takes for another is how requests are smuggled."""
    async with serving() as (here, _), serving(plain=False) as (aiohttps, _):
        status, found = await said(here, ODD[kind])
        expected_status, expected = await said(aiohttps, ODD[kind])
        assert status == expected_status
        if status == 200:
            assert {**found, "plain": False} == expected


async def test_what_is_sent_ahead_waits_for_its_turn() -> None:
    """As much as there is: reading stops meanwhile."""
    release, begun = asyncio.Event(), asyncio.Event()

    async def wait(_request: object, body: bytes) -> None:
        begun.set()
        if body == b"first":
            await release.wait()

    async with serving(wait) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request(b"first"))
        await begun.wait()
        writer.write(request(b"y" * 250_000))
        await asyncio.sleep(0.05)
        release.set()
        for size in (5, 250_000):
            status, found = await answer(reader)
            assert (status, found["plain"], found["size"]) == (200, True, size)
        writer.write(request(b"third"))
        assert (await answer(reader))[0] == 200
        writer.write(request(b"a") + request(b"bb"))
        assert [(await answer(reader))[1]["size"] for _ in range(2)] == [1, 2]
        writer.close()


async def test_a_client_that_leaves_ends_its_request() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def wait(_request: object, _body: bytes) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            left.set()
            raise

    async with serving(wait) as (address, _):
        _, writer = await asyncio.open_connection(*address)
        writer.write(request())
        await begun.wait()
        writer.close()
        await asyncio.wait_for(left.wait(), 5)


async def no_handler(_request: web.BaseRequest | PlainRequest) -> web.StreamResponse:
    raise NotImplementedError


@pytest.mark.parametrize("sent", [request(b"x" * 1000)[:-1], request(), NOT_PLAIN["a query"]])
async def test_a_connection_leaves_no_reader_behind(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """However it ends: while a request is not whole, between two, or at aiohttp. Readers hold bodies."""
    gone = asyncio.Event()
    kept = []

    class Watched(PlainReader):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            kept.append(weakref.ref(self, lambda _: gone.set()))

    monkeypatch.setattr(connections, "PlainReader", Watched)
    gc.disable()
    try:
        async with serving() as (address, _):
            _, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            await writer.drain()
            writer.close()
            await asyncio.wait_for(gone.wait(), 5)
    finally:
        gc.enable()
    assert len(kept) == 1


def test_what_comes_byte_by_byte_costs_no_more_each_time() -> None:
    """A client must not be able to keep a worker busy with a few bytes."""
    reader = PlainReader(by_request_line({PATH: no_handler}), MAX_BODY_BYTES, MAX_HEADER_BYTES)
    body = b"x" * 40_000
    head = request(body)[: -len(body)]
    began_s = time.process_time()
    assert reader.read(head, None) is None
    for _ in range(len(body) - 1):
        assert reader.read(b"x", None) is None
    whole = reader.read(b"x", None)
    assert whole is not None
    assert whole.body == body
    assert time.process_time() - began_s < 1.5


async def test_what_is_sent_ahead_byte_by_byte_costs_no_more_each_time() -> None:
    async def wait(_request: web.BaseRequest | PlainRequest) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise NotImplementedError

    server = web.Server(no_handler, handler_cancellation=True)
    handlers: dict[str, Handler] = {PATH: wait}
    own_connections(server, handlers, MAX_BODY_BYTES, MAX_HEADER_BYTES)
    ours, theirs = socket.socketpair()
    with theirs:
        transport, connection = await asyncio.get_running_loop().create_connection(server, sock=ours)
        connection.data_received(request())
        began_s = time.process_time()
        for _ in range(40_000):
            connection.data_received(b"x")
        took_s = time.process_time() - began_s
        transport.abort()
    assert took_s < 1.5


async def test_a_failure_of_the_handler_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_request: object, _body: bytes) -> None:
        raise ValueError("made up")

    async with serving(fail) as (address, _):
        assert await said(address, request()) == (0, None)
    assert "request failed unexpectedly" in caplog.text


async def test_connections_that_are_idle_are_closed_and_busy_ones_are_not() -> None:
    async def take_long(_request: object, _body: bytes) -> None:
        await asyncio.sleep(0.4)

    async with serving(take_long, keepalive_timeout=0.1) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request())
        assert (await answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_the_end_of_the_server_waits_for_answers_under_way() -> None:
    begun = asyncio.Event()

    async def take_long(_request: object, _body: bytes) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    async with serving(take_long) as (address, runner):
        idle = await asyncio.open_connection(*address)
        answered = await asyncio.open_connection(*address)
        answered[1].write(request())
        assert (await answer(answered[0]))[0] == 200
        begun.clear()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request())
        await begun.wait()
        async with asyncio.timeout(4):
            await runner.cleanup()
        assert (await answer(reader))[0] == 200
        assert await reader.read() == await idle[0].read() == await answered[0].read() == b""
        for one in (writer, idle[1], answered[1]):
            one.close()


async def test_trailers_are_no_headers_of_the_next_request() -> None:
    """aiohttp's parser takes them for that: who shares a connection could speak for who comes after."""
    chunked = NOT_PLAIN["chunked"][: -len(b"\r\n")] + b"Authorization: Bearer other\r\n\r\n"
    async with serving() as (address, _):
        for together in (True, False):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(chunked + request(b"next") if together else chunked)
            assert (await answer(reader))[0] == 200
            if not together:
                writer.write(request(b"next"))
            assert (await answer(reader))[0] == 0
            writer.close()


@pytest.mark.parametrize("kind", ["plain", "aiohttp's"])
async def test_a_client_that_reads_nothing_is_answered_no_more(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers would fill the memory otherwise. Once it has taken nothing for a while it is left."""
    monkeypatch.setattr(connections, "_UNREAD_FOR_S", 0.2)
    served, left = 0, asyncio.Event()
    line = f"POST {PATH}{'' if kind == 'plain' else '?a=b'} HTTP/1.1"

    async def answer_much(asked: web.BaseRequest | PlainRequest, _body: bytes) -> None:
        nonlocal served
        served += 1
        assert asked.transport is not None
        asked.transport.write(bytes(16 << 20))  # more than sockets take

    class Watched(connections._Connection):
        def connection_lost(self, exc: BaseException | None) -> None:
            super().connection_lost(exc)
            left.set()

    monkeypatch.setattr(connections, "_Connection", Watched)
    async with serving(answer_much) as (address, _):
        _, writer = await asyncio.open_connection(*address)
        writer.transport.pause_reading()
        for _ in range(3):
            writer.write(request(line=line))
        await asyncio.wait_for(left.wait(), 5)
        writer.close()
    assert served == 1


async def test_a_client_that_reads_slowly_gets_all_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_UNREAD_FOR_S", 0.4)
    size = 16 << 20

    async def answer_much(asked: web.BaseRequest | PlainRequest, _body: bytes) -> None:
        assert asked.transport is not None
        asked.transport.write(bytes(size))

    async with serving(answer_much) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request())
        for _ in range(8):
            assert len(await reader.readexactly(size // 8)) == size // 8
            await asyncio.sleep(0.1)  # so long does it take
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_the_rest_of_a_packed_body_that_was_refused_is_not_unpacked() -> None:
    packed = gzip.compress(bytes(4 << 20))
    asked = request(packed, "Content-Encoding: gzip")
    async with serving(lingering_time=60.0) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(asked.replace(b"Length: %d" % len(packed), b"Length: 99999"))
        assert (await answer(reader))[0] == 413
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
