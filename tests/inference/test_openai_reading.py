"""The `openai-http` lane, read for a client of another API: real sockets, any chunking, what servers add."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from inference.errors import InferenceError, ProtocolError, RequestRefusedError, StreamBrokenError
from inference.openai_http import OpenAiHttp
from inference.request import InferenceRequest, Usage
from inference.sink import CallDelta, Delta, FinishReason
from tests.inference.test_openai_http import COUNTS, DEEP, DONE, FAILED, HELLO, REFUSED, upstream


class PartsSink:
    """Keeps the parts that were read; `over` is set by the end, and a second end fails the test."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.ended: tuple[FinishReason | None, Usage, str | None] | None = None
        self.error: InferenceError | None = None
        self.over = asyncio.Event()

    def head(self) -> None: ...

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        raise AssertionError(ids)

    def text(self, delta: str) -> None:
        raise AssertionError(delta)

    def data(self, data: bytes) -> None:
        raise AssertionError(f"relayed: {data!r}")

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        assert not self.over.is_set()
        self.ended = (reason, usage, stop)
        self.over.set()

    def lost(self, error: InferenceError) -> None:
        assert not self.over.is_set()
        self.error = error
        self.over.set()

    @property
    def said(self) -> tuple[str, str]:
        """Reasoning and text."""
        return "".join(d.reasoning for d in self.deltas), "".join(d.text for d in self.deltas)

    @property
    def calls(self) -> list[tuple[tuple[str, str] | None, str]]:
        """Each call's beginning and arguments."""
        pieces = [piece for delta in self.deltas for piece in delta.calls]
        begun = [piece for piece in pieces if piece.begun is not None]
        return [
            (piece.begun, "".join(one.arguments for one in pieces if one.call == piece.call))
            for piece in begun
        ]


async def read(*parts: bytes, status: int = 200, stream: bool = True) -> PartsSink:
    request = InferenceRequest(
        id="r", model="m", stream=stream, max_tokens=9, body={"stream": stream}, relay=False
    )
    sink = PartsSink()
    async with upstream(status, parts) as pool:
        OpenAiHttp(pool, "/v1", "target", None).start(request, sink)
        async with asyncio.timeout(5):
            await sink.over.wait()
    return sink


def chunk(reason: str | None = None, choice: dict[str, Any] | None = None, **delta: Any) -> bytes:
    said = {"index": 0, "delta": delta, "finish_reason": reason, **(choice or {})}
    return b"data: " + json.dumps({"choices": [said]}).encode() + b"\n\n"


def call(index: int | None, id_: str | None = None, name: str | None = None, arguments: str = "") -> Any:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": index, "id": id_, "type": "function", "function": function}


ALL_COUNTS = (
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7,"prompt_tokens_details":'
    b'{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":4}}}\n\n'
)
FULL = b"".join(
    [
        chunk(role="assistant", content=""),
        chunk(reasoning_content="Hm. "),
        chunk(reasoning="So."),
        chunk(content="Žluť "),
        chunk(content="kůň"),
        chunk(tool_calls=[call(0, "c0", "weather")]),
        chunk(tool_calls=[call(0, arguments='{"a"')]),
        chunk(tool_calls=[call(0, "c0", "weather", ":1}"), call(1, "c1", "time", "{}")]),
        chunk("tool_calls"),
        ALL_COUNTS,
        DONE,
    ]
)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50, 100_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
async def test_every_part_is_read_however_it_comes(length: int, line_end: bytes) -> None:
    """In pieces of any length, with any line end: the same parts, the same end."""
    sent = FULL.replace(b"\n", line_end)
    sink = await read(*(sent[at : at + length] for at in range(0, len(sent), length)))
    assert sink.error is None
    assert sink.said == ("Hm. So.", "Žluť kůň")
    assert sink.calls == [(("c0", "weather"), '{"a":1}'), (("c1", "time"), "{}")]
    assert sink.ended == ("tool_calls", Usage(3, 7, 2, 4), None)


async def test_a_whole_answer_is_read_alike() -> None:
    """Its calls are not counted by the server."""
    calls = [call(None, "c0", "weather", '{"a":1}'), call(None, "c1", "time", "{}")]
    message = {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": calls}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 7},
    }
    sink = await read(json.dumps(body).encode(), stream=False)
    assert sink.said == ("Hm.", "")
    assert sink.calls == [(("c0", "weather"), '{"a":1}'), (("c1", "time"), "{}")]
    assert sink.ended == ("tool_calls", Usage(3, 7), None)


@pytest.mark.parametrize(
    ("told", "choice", "reason", "stop"),
    [
        ("stop", {}, "stop", None),
        ("length", {}, "length", None),
        ("content_filter", {}, "content_filter", None),
        ("function_call", {}, "tool_calls", None),
        ("stop", {"stop_reason": "END"}, "stop", "END"),
        ("stop", {"stop_reason": 128001}, "stop", None),
        ("stop", {"matched_stop": "END"}, "stop", "END"),
    ],
)
async def test_why_an_answer_ended(told: str, choice: Any, reason: str, stop: str | None) -> None:
    """Token ids that ended it are no stop strings of the client's."""
    sink = await read(HELLO, chunk(told, choice), COUNTS, DONE)
    assert sink.ended == (reason, Usage(3, 2), stop)


async def test_a_refusal_is_text() -> None:
    assert (await read(chunk(refusal="No."), chunk("stop"), DONE)).said == ("", "No.")


async def test_usage_beside_the_last_words_is_read() -> None:
    """As servers send it that count in every chunk."""
    last = b'{"choices":[{"delta":{"content":"!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}'
    sink = await read(HELLO, b"data: " + last + b"\n\n", DONE)
    assert sink.said == ("", "Hello!")
    assert sink.ended == ("stop", Usage(1, 0), None)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((HELLO,), StreamBrokenError),
        ((HELLO, chunk("stop")), StreamBrokenError),
        ((HELLO, DONE), ProtocolError),
        ((HELLO, b"data: {not JSON}\n\n"), ProtocolError),
        ((HELLO, b"data: " + DEEP + b"\n\n"), ProtocolError),
        ((HELLO, b'data: {"choices":5}\n\n'), ProtocolError),
        ((HELLO, REFUSED), RequestRefusedError),
        ((HELLO, FAILED), InferenceError),
        ((chunk(tool_calls=[call(0, "c0")]),), ProtocolError),
        (
            (chunk(tool_calls=[call(0, "a", "f"), call(1, "b", "g")]), chunk(tool_calls=[call(0)])),
            ProtocolError,
        ),
    ],
)
async def test_what_is_no_whole_answer_is_lost(parts: Sequence[bytes], error: type[InferenceError]) -> None:
    """Never falsely clean."""
    sink = await read(*parts)
    assert isinstance(sink.error, error)
    assert sink.ended is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no", DEEP, b'{"choices":[{"message":{"content":5}}]}'])
async def test_a_whole_body_that_is_no_answer_is_lost(body: bytes) -> None:
    assert isinstance((await read(body, stream=False)).error, ProtocolError)


async def test_calls_never_begin_twice() -> None:
    """Servers that repeat id and name with every piece begin a call once."""
    again = chunk(tool_calls=[call(0, "c0", "f", "1")])
    sink = await read(again, again, chunk("tool_calls"), DONE)
    assert [piece for delta in sink.deltas for piece in delta.calls] == [
        CallDelta(0, ("c0", "f"), "1"),
        CallDelta(0, None, "1"),
    ]
