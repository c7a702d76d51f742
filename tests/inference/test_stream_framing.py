"""However events are grouped into HTTP chunks and chunks into reads, the answer is the same."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import openai_http
from inference.errors import InferenceError, ProtocolError, ServerFailedError
from inference.http_chunks import body_of, framed
from inference.http_connection import Connection
from inference.lanes import lane_of
from inference.openai_http import OpenAiHttp
from inference.push_http import HttpPool, Timeouts
from inference.request import InferenceRequest, Sampling
from inference.triton_http import TritonHttp
from tests.inference.lane_schemas import BARE
from tests.inference.recording import RecordingSink

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

_SOCKET = socket.socket()
"""Of every transport: options may be set on it."""


class _Transport(asyncio.Transport):
    """Takes what is written, as a socket with room would."""

    def __init__(self) -> None:
        super().__init__({"socket": _SOCKET})
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def close(self) -> None: ...


class _Relayed(RecordingSink):
    """Keeps the bytes of an OpenAI-HTTP answer."""

    def __init__(self) -> None:
        super().__init__()
        self.relayed = b""

    def data(self, data: bytes) -> None:
        self._pushed()
        self.relayed += data


class _RelayedInChunks(_Relayed):
    """One that is given chunks as they came."""

    def chunk(self, framed: bytes) -> None:
        self.data(body_of(framed))


def _cut(data: bytes, at: list[int]) -> Iterator[bytes]:
    """`data` in pieces, cut at `at`, which are taken modulo its length."""
    places = sorted({0, len(data), *(place % len(data) for place in at)})
    for begin, end in itertools.pairwise(places):
        yield data[begin:end]


def _read(call: Any, request: InferenceRequest, sink: RecordingSink, reads: list[bytes]) -> None:
    """Lets a lane's client `call` read an answer that arrives as `reads`."""

    async def run() -> None:
        pool = HttpPool("http://127.0.0.1:9", Timeouts())
        connection = Connection(pool)
        connection.connection_made(_Transport())
        pool.give_back(connection)
        call(pool).start(request, sink)
        for data in reads:
            connection.data_received(data)
        pool.close()

    asyncio.run(run())


_REQUEST = {"id": "r", "model": "m", "stream": True, "max_tokens": 99, "sampling": Sampling()}
_PLACES = st.lists(st.integers(0, 10**6), max_size=12)
_OTHERS = [b": still here\n\n", b"event: x\ndata: {}\n\n"]


@given(
    st.lists(st.one_of(st.integers(0, 9), st.just(-1), st.lists(st.integers(0, 9), max_size=3)), max_size=8),
    _PLACES,
    _PLACES,
)
def test_token_ids_of_a_triton(tokens: list[int | list[int]], chunks: list[int], reads: list[int]) -> None:
    events = [{"model_name": "t", "output_ids": ids, "cum_log_probs": 0.0} for ids in tokens]
    events.append(
        {"model_name": "t", "output_ids": 7, "last_token_time_ns": "12", "kv_cache_reused_blocks": 1}
    )
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    wire = _HEAD + b"".join(framed(piece) for piece in _cut(body, chunks)) + b"0\r\n\r\n"
    sink = RecordingSink()
    request = InferenceRequest(**_REQUEST, prompt_ids=[1, 2], end_id=11)
    _read(lambda pool: TritonHttp(pool, "t", lane_of(BARE)), request, sink, list(_cut(wire, reads)))
    expected = [id_ for ids in tokens for id_ in (ids if isinstance(ids, list) else [ids]) if id_ >= 0]
    assert sink.ids == [*expected, 7]
    assert (sink.error, sink.reason) == (None, "stop")


@given(
    st.lists(st.sampled_from(["a", "usage", '"error":{', "\u00e9\n\n", "data: [DONE]"]), max_size=8),
    st.sets(st.integers(0, 8), max_size=2),
    st.booleans(),
    _PLACES,
    _PLACES,
)
def test_events_of_an_openai_server(
    texts: list[str], others: set[int], in_chunks: bool, chunks: list[int], reads: list[int]
) -> None:
    deltas = [
        b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}}]}).encode() for text in texts
    ]
    for place in others:
        deltas.insert(place, _OTHERS[place % 2])
    counts = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    body = b"".join(deltas) + counts + b"data: [DONE]\n\n"
    wire = _HEAD + b"".join(framed(piece) for piece in _cut(body, chunks)) + b"0\r\n\r\n"
    sink = _RelayedInChunks() if in_chunks else _Relayed()
    request = InferenceRequest(**_REQUEST, body={"stream": True}, path="/v1/chat/completions")
    _read(lambda pool: OpenAiHttp(pool, "/v1", "t", None), request, sink, list(_cut(wire, reads)))
    assert sink.error is None
    assert sink.relayed == b"".join(deltas)
    assert sink.usage is not None
    assert sink.usage.completion_tokens == 2


class _Bodies:
    """Keeps what the body was read as."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.outcome: object = "open"

    def head(self, status: int) -> None: ...

    def body(self, data: bytes) -> None:
        self.bodies.append(data)

    def flush(self) -> None: ...

    def complete(self) -> None:
        self.outcome = "complete"

    def lost(self, error: InferenceError) -> None:
        self.outcome = error


@pytest.mark.parametrize(
    "reads",
    [
        [b"c\r\n1234", b"3\r\nxyz\r\n", b"\r\n"],  # in its data
        [b"1", b"3\r\nxyz\r\n", b"0123456789abcd\r\n"],  # behind the first digit of its head
        [b"3\r\nabc\r\n1", b"3\r\nxyz\r\n", b"0123456789abcd\r\n"],
    ],
)
async def test_what_looks_like_a_chunk_is_none_within_one(reads: list[bytes]) -> None:
    first = framed(b"first")
    parsed = _Bodies()
    pool = HttpPool("http://127.0.0.1:9", Timeouts())
    connection = Connection(pool)
    connection.connection_made(_Transport())
    pool.give_back(connection)
    pool.start(b"", parsed)
    for data in (_HEAD, first, *reads, b"0\r\n\r\n"):
        connection.data_received(data)
    pool.close()
    assert parsed.outcome == "complete"
    reference: list[bytes] = []
    parser = httptools.HttpResponseParser(SimpleNamespace(on_body=reference.append))
    parser.feed_data(_HEAD + first + b"".join(reads) + b"0\r\n\r\n")
    assert b"".join(parsed.bodies) == b"".join(reference)


def _of_openai(pool: HttpPool) -> OpenAiHttp:
    return OpenAiHttp(pool, "/v1", "t", None)


def _of_triton(pool: HttpPool) -> TritonHttp:
    return TritonHttp(pool, "t", lane_of(BARE))


@pytest.mark.parametrize("call", [_of_openai, _of_triton])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("status", "most"), [(200, 80 << 20), (500, 1 << 20)])
def test_what_does_not_end_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, call: Any, stream: bool, status: int, most: int
) -> None:
    """A server gone wrong must not take the gateway's memory and time."""
    monkeypatch.setattr(openai_http, "_LONGEST_ANSWER_BYTES", 64 << 20)
    piece = framed(b"x" * 65_536)
    reads = [_HEAD.replace(b"200", b"%d" % status), *[piece] * (most // 65_536)]
    fields = {**_REQUEST, "stream": stream}
    request = InferenceRequest(
        **fields, prompt_ids=[1, 2], end_id=11, body={"stream": stream}, path="/v1/chat/completions"
    )
    sink = RecordingSink()
    _read(call, request, sink, reads)
    assert isinstance(sink.error, ProtocolError if status == 200 else ServerFailedError)
