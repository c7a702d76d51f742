"""Chat answers of an OpenAI-HTTP upstream, read part by part for a client that speaks another API.

A whole answer is read as a stream of one chunk. What vLLM, SGLang and DeepSeek add to OpenAI's
shape is known: `reasoning_content` or `reasoning`, and the stop string in `stop_reason` or `matched_stop`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from inference.errors import ProtocolError
from inference.request import Usage
from inference.sink import CallDelta, Delta, FinishReason, Sink

_MOST_TOKENS = 1 << 31
"""More than any answer has; who tells more is wrong."""
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class Counts(Struct, gc=False):
    """OpenAI's `usage`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Counts | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


def usage_of(counts: Counts | None) -> Usage:
    """What an upstream told of its tokens, within what a count can be."""
    if counts is None:
        return Usage()
    prompt, completion = counts.prompt_tokens_details, counts.completion_tokens_details
    cached = prompt.cached_tokens if prompt else None
    thoughts = completion.reasoning_tokens if completion else None
    return Usage(
        _count(counts.prompt_tokens),
        _count(counts.completion_tokens),
        None if cached is None else _count(cached),
        None if thoughts is None else _count(thoughts),
    )


def _count(told: int) -> int:
    """Nothing that adds counts up takes less than none, nor sums that floats cannot hold."""
    return min(max(0, told), _MOST_TOKENS)


class ChatReader:
    """Reads one answer of one choice into a sink."""

    __slots__ = ("_call", "_finished", "_reason", "_sink", "_stop", "_usage")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._call = -1
        self._finished = False
        self._reason: FinishReason | None = None
        self._stop: str | None = None
        self._usage = Usage()

    def read(self, payload: bytes) -> None:
        """One chunk, or a whole answer. Raises msgspec errors and ProtocolError."""
        chunk = _chunk(payload)
        if chunk.usage is not None:
            self._usage = usage_of(chunk.usage)
        for choice in chunk.choices or ():
            said = choice.delta or choice.message
            if said is not None:
                self._said(said)
            if choice.finish_reason is not None:
                self._finish(choice)

    def end(self) -> None:
        """The upstream ended cleanly: `sink.end`, or `sink.lost` where it never told why it stopped."""
        if self._finished:
            self._sink.end(self._reason, self._usage, self._stop)
        else:
            self._sink.lost(ProtocolError("the upstream ended an answer without a finish reason"))

    def _said(self, said: _Said) -> None:
        text = said.content or said.refusal or ""
        reasoning = said.reasoning_content or said.reasoning or ""
        calls = [self._piece(call) for call in said.tool_calls] if said.tool_calls else ()
        if text or reasoning or calls:
            self._sink.delta(Delta(text, reasoning, calls))

    def _piece(self, call: _Call) -> CallDelta:
        """A call's first piece begins it; some servers repeat id and name with every piece."""
        function = call.function or _Function()
        index = call.index
        if index is None:  # whole answers do not count their calls
            index = self._call + 1 if call.id is not None else self._call
        begun = None
        if index > self._call:
            if not function.name:
                raise ProtocolError("the upstream began a tool call without the tool's name")
            self._call, begun = index, (call.id or f"call_{index}", function.name)
        elif index < self._call:
            raise ProtocolError("the upstream went back to a tool call that another one had followed")
        return CallDelta(index, begun, function.arguments or "")

    def _finish(self, choice: _Choice) -> None:
        self._finished = True
        self._reason = _REASONS.get(choice.finish_reason or "", "stop")
        stop = choice.stop_reason or choice.matched_stop
        if isinstance(stop, str) and self._reason == "stop":
            self._stop = stop
