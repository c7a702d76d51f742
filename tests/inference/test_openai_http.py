"""The `openai-http` lane against real sockets: what an upstream may send, and what a client gets of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from inference.errors import (
    InferenceError,
    ProtocolError,
    RequestRefusedError,
    ServerBusyError,
    ServerFailedError,
    ServerUnreachableError,
    StreamBrokenError,
    UpstreamMisconfiguredError,
)
from inference.openai_http import OpenAiHttp
from inference.push_http import HttpPool, Timeouts
from inference.request import InferenceRequest, Lora, Sampling, Usage
from inference.sink import FinishReason

Parts = Sequence[bytes]
DONE = b"data: [DONE]\n\n"
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
COUNTS = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
FAILED = b'data: {"error":{"message":"inner words","type":"InternalServerError","code":500}}\n\n'
REFUSED = b'data: {"error":{"message":"top_k must be 1","param":"top_k","code":400}}\n\n'
DEEP = b"[" * 100_000


class RelaySink:
    """Keeps what is relayed; `over` is set by the end, and a second end fails the test."""

    def __init__(self) -> None:
        self.relayed = b""
        self.usage: Usage | None = None
        self.error: InferenceError | None = None
        self.over = asyncio.Event()

    def head(self) -> None: ...

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        raise AssertionError(ids)

    def text(self, delta: str, tokens: int | None = None) -> None:
        raise AssertionError(delta)

    def data(self, data: bytes) -> None:
        assert data, "an empty chunk would end the client's answer"
        self.relayed += data

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage) -> None:
        self._finish()
        self.usage = usage

    def lost(self, error: InferenceError) -> None:
        self._finish()
        self.error = error

    def _finish(self) -> None:
        assert not self.over.is_set(), "an answer ends once"
        self.over.set()


@asynccontextmanager
async def upstream(status: int, parts: Parts) -> AsyncIterator[HttpPool]:
    """A pool for a server that gives one answer: an HTTP chunk per part."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\ntransfer-encoding: chunked\r\n\r\n" % status)
        for part in (*filter(None, parts), b""):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pool = HttpPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Timeouts())
    yield pool
    pool.close()
    server.close()
    await server.wait_closed()


async def ask(*parts: bytes, status: int = 200, stream: bool = True, usage: bool = False) -> RelaySink:
    body = {"stream": stream, "stream_options": {"include_usage": usage}} if stream else {}
    request = InferenceRequest(
        id="r",
        model="m",
        stream=stream,
        max_tokens=9,
        sampling=Sampling(),
        body=body,
        path="/v1/chat/completions",
    )
    sink = RelaySink()
    async with upstream(status, parts) as pool:
        OpenAiHttp(pool, "/v1", "target", None).start(request, sink)
        async with asyncio.timeout(5):
            await sink.over.wait()
    return sink


async def test_what_is_streamed_is_what_the_clients_body_asks_for() -> None:
    """A request may be streamed from a Triton lane although its client wants it whole."""
    request = InferenceRequest(id="r", model="m", stream=True, max_tokens=9, body={"messages": []})
    sink = RelaySink()
    body = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    async with upstream(200, [body]) as pool:
        OpenAiHttp(pool, "/v1", "target", None).start(request, sink)
        async with asyncio.timeout(5):
            await sink.over.wait()
    assert (sink.error, sink.relayed) == (None, body)


@pytest.mark.parametrize(("lora", "expected"), [(None, "target"), (Lora(7, "sql-adapter"), "sql-adapter")])
async def test_the_upstream_is_asked_for_its_own_name_of_model_or_adapter(
    lora: Lora | None, expected: str
) -> None:
    asked: list[dict[str, object]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        asked.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pool = HttpPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Timeouts())
    request = InferenceRequest(
        id="r", model="m", stream=False, max_tokens=9, body={"model": "chat+sql"}, lora=lora
    )
    sink = RelaySink()
    OpenAiHttp(pool, "/v1", "target", None).start(request, sink)
    async with asyncio.timeout(5):
        await sink.over.wait()
    pool.close()
    server.close()
    assert [body["model"] for body in asked] == [expected]


def events_of(relayed: bytes) -> list[str]:
    """The data of each event, as a client reads them."""
    events = relayed.replace(b"\r\n", b"\n").decode().split("\n\n")
    lines = [line for event in events for line in event.split("\n")]
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


# Clean ends


@pytest.mark.parametrize(
    "parts",
    [
        (HELLO, COUNTS, DONE),
        (HELLO + COUNTS + DONE,),
        (HELLO, COUNTS, DONE + b"\n"),
        (HELLO, COUNTS + DONE + b"\n"),
        (HELLO, COUNTS, b"data:[DONE]\n\n"),
        (HELLO, COUNTS, b"data: [DONE] \n\n"),
        (HELLO, COUNTS, b"data: [DONE]\n"),
        (HELLO, COUNTS, b"data: [DONE]"),
        (HELLO, COUNTS, b"data: [DONE]\r\n"),
        (HELLO, COUNTS, DONE + b": bye\n\n"),
        (HELLO, COUNTS, b": bye\n" + DONE),
        (HELLO, COUNTS, b"\n" + DONE),
        (HELLO, COUNTS, b"event: end\n" + DONE),
        (b": hi\n\n", *(part.replace(b"\n", b"\r\n") for part in (HELLO, COUNTS, DONE))),
        (b": hi\n", *(part.replace(b"\n", b"\r\n") for part in (HELLO, COUNTS, DONE))),
        (HELLO, *(part.replace(b"\n", b"\r\n") for part in (HELLO[:-2], b"\n\n", COUNTS, DONE))),
        (HELLO.replace(b"\n", b"\r\n") + COUNTS, DONE),
        tuple(bytes([byte]) for byte in HELLO + COUNTS + DONE),
        tuple(bytes([byte]) for byte in (b": hi\n" + HELLO + COUNTS + DONE).replace(b"\n", b"\r\n")),
    ],
)
async def test_however_the_end_is_written_it_is_clean_and_left_to_the_gateway(parts: Parts) -> None:
    sink = await ask(*parts)
    assert sink.error is None
    assert sink.usage == Usage(3, 2)
    assert set(events_of(sink.relayed)) == set(events_of(HELLO))
    assert b"[DONE]" not in sink.relayed


async def test_usage_is_relayed_to_who_asked_for_it() -> None:
    sink = await ask(HELLO, COUNTS, DONE, usage=True)
    assert sink.relayed == HELLO + COUNTS
    assert sink.usage == Usage(3, 2)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_count_that_can_be_none_is_told_as_the_nearest(stream: bool) -> None:
    """What adds counts up, in metrics and in Redis, is not made for them: one such answer would end it."""
    cached = b'"prompt_tokens_details":{"cached_tokens":-1}'
    counts = b'{"choices":[],"usage":{"prompt_tokens":-3,"completion_tokens":%d,%b}}' % (1 << 62, cached)
    sink = await ask(*((HELLO, b"data: " + counts + b"\n\n", DONE) if stream else (counts,)), stream=stream)
    assert (sink.error, sink.usage) == (None, Usage(0, 1 << 31, 0))


@pytest.mark.parametrize(
    "parts", [(), (HELLO,), (HELLO, b'data: {"usage":{"pro'), (HELLO, b'data: {"error"')]
)
async def test_without_its_end_a_stream_is_broken(parts: Parts) -> None:
    sink = await ask(*parts)
    assert isinstance(sink.error, StreamBrokenError)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "error"},
        {"content": '"error"'},
        {"content": '{"error": {"message": "x"}}'},
        {"content": "usage"},
        {"content": "data: [DONE]\n\n"},
        {"error": "nested"},
    ],
)
async def test_words_of_the_protocol_within_a_text_are_text(delta: dict[str, str]) -> None:
    event = f"data: {json.dumps({'choices': [{'delta': delta}], 'error': None}, separators=(',', ':'))}\n\n"
    sink = await ask(HELLO, event.encode(), DONE)
    assert sink.error is None
    assert sink.relayed == HELLO + event.encode()


# Errors under 200


@pytest.mark.parametrize("end", [DONE, b""])
@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("before", [b"", HELLO, HELLO * 3])
@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (FAILED, ServerFailedError),
        (FAILED.replace(b"\n", b"\r\n"), ServerFailedError),
        (FAILED.replace(b"500", b"null"), ServerFailedError),
        (FAILED.replace(b"500", b'"overloaded"'), ServerFailedError),
        (FAILED.replace(b"500", b"503"), ServerBusyError),
        (b"event: error\n" + FAILED, ServerFailedError),
        (b'data: {"error":"inner words"}\n\n', ServerFailedError),
        (b'data: {"error":{}}\n\n', ServerFailedError),
        (b'data: {"error":{"message":["inner words"]}}\n\n', ServerFailedError),
        (
            b'data: {"choices":[],"error":{"message":"inner words"},"usage":{"prompt_tokens":"x"}}\n\n',
            ServerFailedError,
        ),
        (b'data: {"error":{"message":"inner \xff words"}}\n\n', ProtocolError),
        (b'data: {"error":' + DEEP + b"}\n\n", ProtocolError),
        (b'data: {"error":{"message":"inner words"}\n\n', ProtocolError),
    ],
)
async def test_an_error_event_loses_the_answer(
    before: bytes, event: bytes, end: bytes, joined: bool, kind: type[InferenceError]
) -> None:
    """What came before stays relayed; of the event itself nothing is."""
    parts = [before + event + end] if joined else [part for part in (before, event, end) if part]
    sink = await ask(*parts)
    assert type(sink.error) is kind
    assert sink.error.retry_safe
    assert events_of(sink.relayed) == events_of(before)
    assert b"inner" not in sink.relayed


async def test_an_error_event_about_the_request_says_so() -> None:
    sink = await ask(REFUSED, DONE)
    assert isinstance(sink.error, RequestRefusedError)
    assert (str(sink.error), sink.error.param) == ("top_k must be 1", "top_k")
    assert sink.relayed == b""


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
async def test_a_stream_may_be_refused_by_plain_json(end: bytes) -> None:
    sink = await ask(b'{"error":{"message":"inner words"}}' + end)
    assert isinstance(sink.error, ServerFailedError)
    assert sink.relayed == b""


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"inner","code":500}}', ServerFailedError),
        (b'{"error":{"message":"wrong","code":422}}', RequestRefusedError),
        (b'{"error":{"message":"no room","code":429}}', ServerBusyError),
        (b'{"error":"inner"}', ServerFailedError),
        (b'{"choices":[],"usage":{"prompt_tokens":"x"}}', ProtocolError),
        (b'{"error":"\xff"}', ProtocolError),
        (b'{"x":' + DEEP, ProtocolError),
        (b"", ProtocolError),
        (b"<html>", ProtocolError),
    ],
)
async def test_a_whole_body_that_is_no_answer_is_lost(body: bytes, kind: type[InferenceError]) -> None:
    sink = await ask(body, stream=False)
    assert type(sink.error) is kind
    assert sink.relayed == b""


async def test_a_whole_answer_is_relayed_as_it_is() -> None:
    counts = b'"usage":{"prompt_tokens":3,"completion_tokens":2}'
    body = b'{"choices":[{"message":{"content":"error"}}],"error":null,%b}' % counts
    sink = await ask(body, stream=False)
    assert (sink.error, sink.relayed, sink.usage) == (None, body, Usage(3, 2))


@pytest.mark.parametrize(
    "event",
    [b'data: {"usage":{"x":"\xff"},"model":"\xff","usage":{}\n\n', b'data: {"usage":{"x":' + DEEP + b"}\n\n"],
)
async def test_an_event_that_is_no_json_loses_the_answer(event: bytes) -> None:
    sink = await ask(HELLO, event, DONE)
    assert isinstance(sink.error, ProtocolError)
    assert sink.relayed == HELLO


# Refusals


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefusedError),
        (422, RequestRefusedError),
        (401, UpstreamMisconfiguredError),
        (403, UpstreamMisconfiguredError),
        (404, UpstreamMisconfiguredError),
        (405, UpstreamMisconfiguredError),
        (429, ServerBusyError),
        (503, ServerBusyError),
        (502, ServerUnreachableError),
        (500, ServerFailedError),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"words","code":"x"}}',
        b'{"error":{"message":null,"param":7,"code":[1]}}',
        b'{"error":{"message":"bad \xff"}}',
        b'{"error":' + DEEP,
        b'{"object":"error","message":"words"}',
        b"[1]",
        b"",
    ],
)
async def test_a_status_is_classified_whatever_the_body(
    status: int, kind: type[InferenceError], body: bytes, stream: bool
) -> None:
    sink = await ask(body, status=status, stream=stream)
    assert type(sink.error) is kind
    assert str(sink.error)
    assert sink.relayed == b""


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_what_the_operator_has_to_mend_is_no_fault_of_the_endpoint(status: int) -> None:
    """One model set up wrongly must not close its endpoint for everyone."""
    sink = await ask(b"{}", status=status)
    assert sink.error is not None
    assert (sink.error.endpoint_fault, sink.error.retry_safe) == (False, True)


async def test_a_refusal_shows_no_source() -> None:
    told = "max_tokens is too large (/opt/server/serving.py:123)\nTraceback: x"
    sink = await ask(json.dumps({"error": {"message": told}}).encode(), status=400)
    assert str(sink.error) == "max_tokens is too large"
