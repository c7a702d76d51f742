"""Answers: OpenAI's chunks and objects as bytes.

A stream fixes everything but the text once, per choice, so that a delta is two concatenations and one JSON
string. Every event is complete: `data: {...}` and the blank line. Nothing here knows tokens or tokenizers.
Source of the shapes: openai-openapi, `CreateChatCompletionStreamResponse` and its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from gateway.api.errors import ErrorShape, encode_error_event
from gateway.api.finish import FinishReason
from inference.request import Usage
from model_registry.entities import Adapter, Model

DONE = b"data: [DONE]\n\n"
_LEAST_LOG_PROB = -9999.0
"""What OpenAI shows for a token of no probability; JSON has no infinity."""
_encode = msgspec.json.Encoder().encode


class LogProb(NamedTuple):
    """A chosen token's own bytes, which may be a part of a character, and its natural log probability."""

    piece: bytes
    log_prob: float
    top: Sequence[tuple[bytes, float]] = ()
    """The likeliest tokens, best first, where they were asked for."""


class CalledTool(NamedTuple):
    """One tool call of a finished answer; `arguments` is the JSON text of one object."""

    id: str
    name: str
    arguments: str


class Choice(Struct):
    """One finished answer of a request that is not streamed."""

    text: str
    finish_reason: FinishReason
    logprobs: Sequence[LogProb] | None = None
    reasoning: str | None = None
    """What the model thought, where it is told apart from its answer."""
    tool_calls: Sequence[CalledTool] = ()
    stop: str | None = None
    """The stop string that ended it, where it is known; OpenAI's answers do not tell."""


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`; details that the server did not tell are left out."""
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    thoughts = usage.reasoning_tokens
    details = {}
    if usage.cached_tokens is not None:
        details["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if thoughts is not None:
        details["completion_tokens_details"] = {"reasoning_tokens": thoughts}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


class ChatStream:
    """The events of one streamed chat answer."""

    def __init__(
        self,
        id: str,  # noqa: A002 - OpenAI's own word
        created: int,
        model: str,
        n: int = 1,
        *,
        include_usage: bool = False,
        service_tier: str | None = None,
        system_fingerprint: str | None = None,
    ) -> None:
        head = _open(id, "chat.completion.chunk", created, model, service_tier, system_fingerprint)
        self._head = b"data: " + head
        tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._choices = [self._head + b'[{"index":%d,"delta":' % index for index in range(n)]
        self._deltas = [choice + b'{"content":' for choice in self._choices]
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + tail
        self._after_logprobs = b',"refusal":null},"finish_reason":null}' + tail
        self._tail = tail
        self._include_usage = include_usage

    def opening(self, index: int) -> bytes:
        """The event with the role."""
        delta = b'{"role":"assistant","content":"","refusal":null'
        return self._choices[index] + delta + self._after_text

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None = None) -> bytes:
        """New text of a choice, with the log probabilities of the tokens it is made of."""
        if logprobs is None:
            return self._deltas[index] + _encode(text) + self._after_text
        content = b'},"logprobs":{"content":' + _encode([_chat_logprob(*entry) for entry in logprobs])
        return self._deltas[index] + _encode(text) + content + self._after_logprobs

    def reasoning(self, index: int, text: str) -> bytes:
        """New text of what the model thinks, under the name that vLLM, SGLang and DeepSeek gave it."""
        return self._choices[index] + b'{"reasoning_content":' + _encode(text) + self._after_text

    def tool_call(self, index: int, call: int, id: str, name: str) -> bytes:  # noqa: A002 - OpenAI's own word
        """A tool call begins."""
        function = {"name": name, "arguments": ""}
        begun = [{"index": call, "id": id, "type": "function", "function": function}]
        return self._choices[index] + b'{"tool_calls":' + _encode(begun) + self._after_text

    def tool_arguments(self, index: int, call: int, fragment: str) -> bytes:
        """The next piece of a tool call's arguments."""
        more = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (call, _encode(fragment))
        return self._choices[index] + more + self._after_text

    def finish(self, index: int, reason: FinishReason, stop: str | None = None) -> bytes:
        """The last event of a choice."""
        del stop  # OpenAI does not tell
        end = b'{},"logprobs":null,"finish_reason":"%b"}' % reason.encode()
        return self._choices[index] + end + self._tail

    def end(self, usage: Usage) -> bytes:
        """The event of `stream_options.include_usage` where it was asked for, and the end mark."""
        if not self._include_usage:
            return DONE
        return self._head + b'[],"usage":' + _encode(usage_object(usage)) + b"}\n\n" + DONE

    def error(self, shape: ErrorShape) -> bytes:
        """The event that ends a broken stream."""
        return encode_error_event(shape)


class CompletionStream:
    """The events of one streamed text completion."""

    def __init__(
        self,
        id: str,  # noqa: A002 - OpenAI's own word
        created: int,
        model: str,
        n: int = 1,
        *,
        include_usage: bool = False,
        system_fingerprint: str | None = None,
    ) -> None:
        self._head = b"data: " + _open(id, "text_completion", created, model, None, system_fingerprint)
        self._deltas = [self._head + b'[{"index":%d,"text":' % index for index in range(n)]
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._after_text = b',"logprobs":null,"finish_reason":null}' + self._tail
        self._offsets = [0] * n
        self._include_usage = include_usage

    def opening(self, index: int) -> bytes:
        """Nothing: a text completion has no role."""
        del index
        return b""

    def reasoning(self, index: int, text: str) -> bytes:
        """Part of the text: text completions are not taken apart."""
        return self.delta(index, text)

    def tool_call(self, index: int, call: int, id: str, name: str) -> bytes:  # noqa: A002 - OpenAI's own word
        """Text completions have no tools."""
        raise NotImplementedError

    def tool_arguments(self, index: int, call: int, fragment: str) -> bytes:
        """Text completions have no tools."""
        raise NotImplementedError

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None = None) -> bytes:
        """New text of a choice, with the log probabilities of the tokens it is made of."""
        if logprobs is None:
            return self._deltas[index] + _encode(text) + self._after_text
        columns = completion_logprobs(logprobs, self._offsets[index])
        self._offsets[index] += sum(map(len, columns["tokens"]))
        end = b',"logprobs":' + _encode(columns) + b',"finish_reason":null}' + self._tail
        return self._deltas[index] + _encode(text) + end

    def finish(self, index: int, reason: FinishReason, stop: str | None = None) -> bytes:
        """The last event of a choice."""
        del stop  # OpenAI does not tell
        end = b'"","logprobs":null,"finish_reason":"%b"}' % reason.encode()
        return self._deltas[index] + end + self._tail

    def end(self, usage: Usage) -> bytes:
        """The event of `stream_options.include_usage` where it was asked for, and the end mark."""
        if not self._include_usage:
            return DONE
        return self._head + b'[],"usage":' + _encode(usage_object(usage)) + b"}\n\n" + DONE

    def error(self, shape: ErrorShape) -> bytes:
        """The event that ends a broken stream."""
        return encode_error_event(shape)


def chat_answer(
    id: str,  # noqa: A002 - OpenAI's own word
    created: int,
    model: str,
    choices: Iterable[Choice],
    usage: Usage,
    *,
    service_tier: str | None = None,
    system_fingerprint: str | None = None,
) -> bytes:
    """The body of a chat answer that is not streamed."""
    head = _open(id, "chat.completion", created, model, service_tier, system_fingerprint)
    listed = [_chat_choice(index, choice) for index, choice in enumerate(choices)]
    return head + _encode(listed) + b',"usage":' + _encode(usage_object(usage)) + b"}"


def completion_answer(
    id: str,  # noqa: A002 - OpenAI's own word
    created: int,
    model: str,
    choices: Iterable[Choice],
    usage: Usage,
    *,
    system_fingerprint: str | None = None,
) -> bytes:
    """The body of a text completion that is not streamed."""
    head = _open(id, "text_completion", created, model, None, system_fingerprint)
    listed = [_completion_choice(index, choice) for index, choice in enumerate(choices)]
    return head + _encode(listed) + b',"usage":' + _encode(usage_object(usage)) + b"}"


def completion_logprobs(entries: Sequence[LogProb], offset: int = 0) -> dict[str, Any]:
    """Log probabilities in the columns of text completions; `offset` in characters of the answer."""
    tokens = [_shown(entry.piece) for entry in entries]
    ends = accumulate(map(len, tokens), initial=offset)
    columns: dict[str, Any] = {
        "tokens": tokens,
        "token_logprobs": [max(_LEAST_LOG_PROB, entry.log_prob) for entry in entries],
        "text_offset": list(islice(ends, len(entries))),
    }
    if any(entry.top for entry in entries):
        columns["top_logprobs"] = [
            {_shown(piece): max(_LEAST_LOG_PROB, log_prob) for piece, log_prob in entry.top}
            for entry in entries
        ]
    return columns


class Shown(NamedTuple):
    """One entry of `/v1/models`: a model or an adapter, under one of its names."""

    name: str
    model: Model
    adapter: Adapter | None = None


def models_answer(shown: Iterable[Shown]) -> bytes:
    """The body of `GET /v1/models`."""
    return _encode({"object": "list", "data": [_model_object(one) for one in shown]})


def model_answer(shown: Shown) -> bytes:
    """The body of `GET /v1/models/{name}`."""
    return _encode(_model_object(shown))


def _open(
    id: str,  # noqa: A002 - OpenAI's own word
    object_type: str,
    created: int,
    model: str,
    service_tier: str | None,
    system_fingerprint: str | None,
) -> bytes:
    """The object up to and with `"choices":`."""
    head: dict[str, Any] = {"id": id, "object": object_type, "created": created, "model": model}
    if service_tier is not None:
        head["service_tier"] = service_tier
    if system_fingerprint is not None:
        head["system_fingerprint"] = system_fingerprint
    return _encode(head)[:-1] + b',"choices":'


def _chat_choice(index: int, choice: Choice) -> Mapping[str, Any]:
    logprobs = None
    if choice.logprobs is not None:
        logprobs = {"content": [_chat_logprob(*entry) for entry in choice.logprobs], "refusal": None}
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.reasoning is not None:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": tool.arguments}}
            for tool in choice.tool_calls
        ]
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _chat_logprob(
    piece: bytes, log_prob: float, top: Sequence[tuple[bytes, float]] = ()
) -> Mapping[str, Any]:
    return {**_one_logprob(piece, log_prob), "top_logprobs": [_one_logprob(*other) for other in top]}


def _one_logprob(piece: bytes, log_prob: float) -> Mapping[str, Any]:
    return {"token": _shown(piece), "logprob": max(_LEAST_LOG_PROB, log_prob), "bytes": list(piece)}


def _shown(piece: bytes) -> str:
    """A token's text; a part of a character is written out as OpenAI does, `bytes:\\xe2\\x82`."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _completion_choice(index: int, choice: Choice) -> Mapping[str, Any]:
    logprobs = None if choice.logprobs is None else completion_logprobs(choice.logprobs)
    return {"index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _model_object(shown: Shown) -> Mapping[str, Any]:
    """An adapter says what it is and what it is based on, as vLLM's do."""
    model, adapter = shown.model, shown.adapter
    described = {
        "id": shown.name,
        "object": "model",
        "created": model.created if adapter is None else adapter.created,
        "owned_by": model.owned_by,
        "context_length": model.context_length,
        "modality": model.modality,
    }
    return described if adapter is None else {**described, "root": adapter.name, "parent": model.name}
