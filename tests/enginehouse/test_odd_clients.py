"""Clients that send what is no request, or leave at a bad moment, cost a real gateway nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.enginehouse.test_gateway_process import ASK, Gateway, ended, engine, gateway, settings
from tests.model_registry.conftest import config, eventually, redis_client, redis_server, store

__all__ = ["config", "engine", "gateway", "redis_client", "redis_server", "settings", "store"]

SHORT = {**ASK, "stream": False, "max_tokens": 2}


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Wire(NamedTuple):
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 15)

    async def answer(self) -> Answer:
        head = await self.head()
        _, status, rest = head.split(b" ", 2)
        length = int(rest.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return Answer(int(status), await self.reader.readexactly(length))


@asynccontextmanager
async def wire(gateway: Gateway, data: bytes) -> AsyncIterator[Wire]:
    """To the gateway, with `data` sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(data)
    yield Wire(reader, writer)
    writer.transport.abort()


def raw(gateway: Gateway, body: object, *headers: str, length: str | None = None) -> bytes:
    data = json.dumps(body).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: h", f"Content-Length: {length or len(data)}")
    key = f"Authorization: {gateway.session.headers['Authorization']}"
    return "\r\n".join((*lines, key, *headers, "", "")).encode() + data


async def test_what_is_odd_is_answered_in_the_apis_shape(gateway: Gateway) -> None:
    """And the connection after it is served as ever."""
    refused = {
        "zeros": (raw(gateway, SHORT, length="0" * 5000 + "2"), 400, "invalid_http"),
        "long": (raw(gateway, SHORT, length="99999999999"), 413, "request_too_large"),
        "head": (raw(gateway, SHORT, "X-A: " + "a" * 20_000), 400, "invalid_http"),
        "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_http"),
        "key": (raw(gateway, SHORT).replace(b"Bearer ", b"Bearer x"), 401, "invalid_api_key"),
    }
    found = {}
    for name, (data, _, _) in refused.items():
        async with wire(gateway, data) as one:
            answer = await one.answer()
            found[name] = (answer.status, answer.code)
    assert found == {name: (status, code) for name, (_, status, code) in refused.items()}

    async with wire(gateway, 2 * raw(gateway, SHORT)) as one:
        assert [(await one.answer()).status for _ in range(2)] == [200, 200]
    async with wire(gateway, raw(gateway, SHORT, "Expect: 100-continue")) as one:
        assert (await one.head()).startswith(b"HTTP/1.1 100 ")
        assert (await one.answer()).status == 200


async def test_who_leaves_a_stream_frees_its_slot_whatever_was_sent_ahead(gateway: Gateway) -> None:
    async def figures() -> dict[str, str]:
        async with gateway.session.get(f"{gateway.root}/metrics") as response:
            lines = (await response.text()).splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    for number, ahead in enumerate((b"", b"x" * 100, b"y" * 300_000), 1):
        async with wire(gateway, raw(gateway, ASK)) as one:
            await one.head()
            one.writer.write(ahead)
            await one.reader.readuntil(b"content")

        async def over(number: int = number) -> bool:
            now = await figures()
            cancelled = now.get('enginehouse_cancellations_total{phase="stream"}')
            return cancelled == f"{number}.0" and now["enginehouse_requests_in_flight"] == "0.0"

        await eventually(over, every_s=0.05)


async def test_at_the_end_half_a_request_is_refused_and_a_whole_one_served(gateway: Gateway) -> None:
    async with (
        wire(gateway, raw(gateway, SHORT)) as idle,
        wire(gateway, raw(gateway, SHORT)[:-10]) as half,
        wire(gateway, raw(gateway, ASK)) as stream,
    ):
        assert (await idle.answer()).status == 200
        await stream.head()
        gateway.process.send_signal(signal.SIGTERM)
        assert (await half.answer()).status == 503
        assert (await stream.reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert await ended(gateway) == 0
