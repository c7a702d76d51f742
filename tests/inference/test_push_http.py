"""The push transport against real sockets: pooling, framing, timeouts, and every way a server can go away."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from inference.delayed_acks import delay_acks
from inference.errors import (
    InferenceError,
    ProtocolError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
)
from inference.http_chunks import framed
from inference.push_http import HttpPool, Timeouts, http_request, request_head

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
MESSAGE = http_request(request_head("/x", "host"), "", b"{}")


class Receiver:
    """Collects one answer."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.data: list[bytes] = []
        self.flushes = 0
        self.outcome: asyncio.Future[InferenceError | None] = asyncio.get_running_loop().create_future()
        self.some = asyncio.Event()

    def head(self, status: int) -> None:
        self.heads.append(status)

    def body(self, data: bytes) -> None:
        self.data.append(bytes(data))
        self.some.set()

    def flush(self) -> None:
        self.flushes += 1

    def complete(self) -> None:
        self.outcome.set_result(None)

    def lost(self, error: InferenceError) -> None:
        self.outcome.set_result(error)

    async def end(self) -> InferenceError | None:
        async with asyncio.timeout(5):
            return await self.outcome


@asynccontextmanager
async def serving(handler: Handler, timeouts: Timeouts | None = None) -> AsyncIterator[HttpPool]:
    """A pool for a server that runs `handler` on every connection."""
    writers = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = HttpPool(f"http://127.0.0.1:{port}", timeouts or Timeouts())
    try:
        yield pool
    finally:
        pool.close()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> None:
    await reader.readexactly(len(MESSAGE))


async def test_connections_are_reused_and_chunked_bodies_arrive_whole() -> None:
    """Many exchanges in a row take one connection."""
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async with serving(handler) as pool:
        for _ in range(5):
            receiver = Receiver()
            pool.start(MESSAGE, receiver)
            assert await receiver.end() is None
            assert (b"".join(receiver.data), receiver.heads) == (b"abcde", [200])
            assert receiver.flushes >= 1
    assert connections == 1


async def test_a_warm_connection_the_server_closed_is_replaced_unseen() -> None:
    """A server may close an idle connection just as the next request goes out."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
        await read_request(reader)  # the second request is read, and the connection dropped

    async with serving(handler) as pool:
        for _ in range(3):
            receiver = Receiver()
            pool.start(MESSAGE, receiver)
            assert await receiver.end() is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ServerUnreachableError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", StreamBrokenError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", StreamBrokenError),
        (b"SSH-2.0-OpenSSH\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", None),
    ],
)
async def test_how_an_answer_that_ends_early_is_told(
    answer: bytes, error: type[InferenceError] | None
) -> None:
    """Only an answer with its end is complete; a body framed by the connection's end is."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)

    async with serving(handler) as pool:
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        outcome = await receiver.end()
        assert outcome is None if error is None else isinstance(outcome, error)


async def test_no_listener_is_unreachable() -> None:
    """Connection refused is a safe failure."""
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    pool = HttpPool(f"http://127.0.0.1:{port}", Timeouts())
    receiver = Receiver()
    pool.start(MESSAGE, receiver)
    outcome = await receiver.end()
    assert isinstance(outcome, ServerUnreachableError)
    assert outcome.retry_safe
    pool.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
async def test_a_silent_server_is_given_up(answer: bytes) -> None:
    """Before the answer and within it."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await reader.read()

    async with serving(handler, Timeouts(first_byte_s=0.2, idle_s=0.2)) as pool:
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        assert isinstance(await receiver.end(), ServerTimeoutError)


async def test_cancelling_closes_the_connection_and_calls_nothing_more() -> None:
    """The server sees the end of the connection; the receiver hears nothing of it."""
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        try:
            await reader.read()
        except ConnectionError:
            pass
        gone.set()

    async with serving(handler) as pool:
        receiver = Receiver()
        exchange = pool.start(MESSAGE, receiver)
        async with asyncio.timeout(5):
            await receiver.some.wait()
            exchange.cancel()
            exchange.cancel()
            await gone.wait()
        assert not receiver.outcome.done()


async def test_cancelling_while_connecting_is_quiet() -> None:
    """A request that never went out leaves nothing behind."""

    async def handler(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    async with serving(handler) as pool:
        receiver = Receiver()
        exchange = pool.start(MESSAGE, receiver)
        exchange.cancel()
        probe = Receiver()
        pool.start(MESSAGE, probe).cancel()
        await asyncio.sleep(0)
        assert not receiver.outcome.done()


async def test_a_paused_exchange_stops_reading_and_goes_on() -> None:
    """While the client is slow the server's bytes stay in the sockets; the silence is not held against it."""
    total = 8 * 1024 * 1024

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(handler, Timeouts(idle_s=0.3)) as pool:
        receiver = Receiver()
        exchange = pool.start(MESSAGE, receiver)
        async with asyncio.timeout(5):
            await receiver.some.wait()
        exchange.pause()
        await asyncio.sleep(0)
        seen = sum(map(len, receiver.data))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await asyncio.shield(receiver.outcome)
        assert sum(map(len, receiver.data)) - seen <= 2 * 262144
        assert sum(map(len, receiver.data)) < total
        exchange.resume()
        assert await receiver.end() is None
        assert sum(map(len, receiver.data)) == total


async def test_what_a_receiver_raises_ends_its_exchange_only() -> None:
    """A protocol error in one answer closes that connection; the next exchange gets a new one."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")

    class Refusing(Receiver):
        def body(self, data: bytes) -> None:
            raise ProtocolError("not of the schema")

    async with serving(handler) as pool:
        refusing = Refusing()
        pool.start(MESSAGE, refusing)
        assert isinstance(await refusing.end(), ProtocolError)
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        assert await receiver.end() is None


async def test_an_exchange_that_is_over_no_longer_touches_its_connection() -> None:
    """The connection may serve another request by then: pausing it would stall a stranger."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")

    async with serving(handler) as pool:
        first, second = Receiver(), Receiver()
        over = pool.start(MESSAGE, first)
        assert await first.end() is None
        pool.start(MESSAGE, second)
        over.pause()
        assert await second.end() is None


async def test_an_answer_that_cannot_be_read_still_ends() -> None:
    """Whatever its receiver raises at the end."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")

    class Failing(Receiver):
        def complete(self) -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")

    async with serving(handler) as pool:
        receiver = Failing()
        pool.start(MESSAGE, receiver)
        assert isinstance(await receiver.end(), ProtocolError)


@pytest.mark.skipif(delay_acks is None, reason="Linux alone can tell how it acknowledges")
async def test_tokens_are_not_acknowledged_one_by_one() -> None:
    """Half of the packets back to the server, as the server's own socket counts them."""
    tokens, packets = 100, 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal packets
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        before = packets_in(writer)
        for _ in range(tokens):
            writer.write(framed(b"x" * 200))
            await asyncio.sleep(0.003)
        packets = packets_in(writer) - before
        writer.write(b"0\r\n\r\n")

    async with serving(handler) as pool:
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        assert await receiver.end() is None
        assert b"".join(receiver.data) == b"x" * 200 * tokens
        assert 0 < packets < 0.7 * tokens


def packets_in(writer: asyncio.StreamWriter) -> int:
    """Packets that came on a connection (`tcpi_segs_in` of Linux's `struct tcp_info`)."""
    told = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
    return int.from_bytes(told[140:144], sys.byteorder)


class Heeding(Receiver):
    """One that looks at headers."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def header(self, _name: bytes, _value: bytes) -> None:
        self.told.set()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize("apart", [False, True])
async def test_an_interim_answer_is_not_the_answer(apart: bool) -> None:
    """Taken for it, the real one would be left to whoever is served next by the connection."""
    before = b"HTTP/1.1 102 Processing\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    go_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(before)
        if apart:
            await go_on.wait()
        writer.write(OK)
        await read_request(reader)
        writer.write(OK.replace(b"ok", b"no"))

    async with serving(handler) as pool:
        first, second = Heeding(), Receiver()
        pool.start(MESSAGE, first)
        await asyncio.wait_for(first.told.wait(), 5)
        go_on.set()
        assert await first.end() is None
        assert (first.heads, first.data) == ([200], [b"ok"])
        pool.start(MESSAGE, second)
        assert await second.end() is None
        assert (second.heads, second.data) == ([200], [b"no"])


@pytest.mark.parametrize("answer", [OK, OK_CHUNKED])
async def test_a_second_answer_reaches_nobody(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer + OK.replace(b"ok", b"no"))
        await reader.read()

    async with serving(handler) as pool:
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        assert isinstance(await receiver.end(), ProtocolError)
        assert (receiver.heads, b"".join(receiver.data)) == ([200], b"ok")
        assert pool.take_idle() is None


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99_999,
    ],
)
async def test_what_is_no_head_of_an_answer_is_the_servers_failure(head: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head)
        await reader.read()

    async with serving(handler) as pool:
        receiver = Receiver()
        pool.start(MESSAGE, receiver)
        assert isinstance(await receiver.end(), ProtocolError)
        assert receiver.heads == []
