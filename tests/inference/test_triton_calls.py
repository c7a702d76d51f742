"""A call at a real Triton is cancelled, paused and resumed; one at nobody fails."""

from __future__ import annotations

import asyncio

import pytest

from inference.control import TritonControl
from inference.errors import (
    ServerUnreachableError,
)
from inference.sink import Call
from tests.inference.recording import RecordingSink
from tests.inference.speaking import (
    TRANSPORTS,
    WAIT_S,
    Speaker,
    Transport,
    idle,
    until,
)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cancelled_call_frees_its_slot(
    speaker: Speaker, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While streaming; and the sink hears no more."""
    seen = asyncio.Event()
    sink = RecordingSink(on_push=seen.set)
    request = speaker.request(max_tokens=400, min_tokens=400, temperature=1.0)
    call = await speaker.start("ids", transport, sink, request)
    async with asyncio.timeout(WAIT_S):
        await seen.wait()
    call.cancel()
    call.cancel()
    heard = len(sink.ids)
    async with TritonControl(speaker.server) as control:
        await until(lambda: idle(control, "ids"))
    assert len(sink.ids) == heard
    assert sink.ends == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_paused_call_reads_on_when_resumed(speaker: Speaker, transport: Transport) -> None:
    """The engine finishes meanwhile; nothing is pushed until the client can take it."""
    calls: list[Call] = []
    sink = RecordingSink(on_push=lambda: calls[0].pause())
    calls.append(
        await speaker.start("ids", transport, sink, speaker.request(max_tokens=200, temperature=1.0))
    )
    async with asyncio.timeout(WAIT_S):
        await sink.begun.wait()
    async with TritonControl(speaker.server) as control:
        await until(lambda: idle(control, "ids"))
    assert not sink.over.is_set()
    heard = len(sink.ids)
    while not sink.over.is_set():
        calls[0].resume()
        await asyncio.sleep(0)
    assert sink.error is None
    assert len(sink.ids) > heard


async def test_grpc_without_a_server_is_unreachable(speaker: Speaker) -> None:
    gone = Speaker(speaker.server.model_copy(update={"grpc": "127.0.0.1:9"}), speaker.tokenizer)
    sink = await gone.ask("ids", "grpc")
    assert isinstance(sink.error, ServerUnreachableError)
    await gone.close()
