"""Answers of the Messages API: whole messages, and the events of a streamed one.

Blocks come one after the other: each is started, filled by deltas and stopped. What the model thinks is
shown to clients that asked for it, with an empty signature: nothing here is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.api.answers import CalledTool, Choice, LogProb
from gateway.api.anthropic.errors import encode_error_event
from gateway.api.errors import ErrorShape
from gateway.api.finish import FinishReason
from gateway.api.sse import encode, event, event_head
from inference.request import Usage

_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_STARTS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def message(
    request_id: str, model: str, choice: Choice, usage: Usage, tier: str | None, *, shows_thinking: bool
) -> bytes:
    """The body of a message that is not streamed."""
    content = list(_blocks(choice, shows_thinking=shows_thinking))
    said = _message(request_id, model, usage_object(usage, tier))
    return encode({**said, "content": content, **_ending(choice.finish_reason, choice.stop)})


def usage_object(usage: Usage, tier: str | None) -> dict[str, Any]:
    """Tokens in this API's words: what came from the cache is not part of `input_tokens`."""
    cached = usage.cached_tokens or 0
    return {
        "input_tokens": (usage.prompt_tokens or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens or 0,
        "service_tier": "priority" if tier == "priority" else "standard",
    }


class MessageStream:
    """Encodes one streamed message."""

    def __init__(
        self,
        request_id: str,
        model: str,
        prompt_tokens: int | None,
        tier: str | None,
        *,
        shows_thinking: bool,
    ) -> None:
        self._tier = tier
        self._start = _message(request_id, model, usage_object(Usage(prompt_tokens, 0), tier))
        self._shows_thinking = shows_thinking
        self._blocks = 0
        self._kind: str | None = None
        """Of the block that is open."""
        self._delta_head = b""
        self._ending: dict[str, Any] = {}

    def opening(self, index: int) -> bytes:
        """The message, still empty."""
        del index
        return event({"type": "message_start", "message": self._start})

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None = None) -> bytes:
        """New text of the answer."""
        del index, logprobs
        return self._in("text") + self._more(text)

    def reasoning(self, index: int, text: str) -> bytes:
        """New text of what the model thinks."""
        del index
        return self._in("thinking") + self._more(text) if self._shows_thinking else b""

    def tool_call(self, index: int, call: int, id: str, name: str) -> bytes:  # noqa: A002 - OpenAI's own word
        """The block of a tool call begins; `tool_arguments` fills it."""
        del index, call
        return self._close() + self._begin(
            "tool_use", {"type": "tool_use", "id": id, "name": name, "input": {}}
        )

    def tool_arguments(self, index: int, call: int, fragment: str) -> bytes:
        """The next piece of its input."""
        del index, call
        return self._more(fragment)

    def finish(self, index: int, reason: FinishReason, stop: str | None = None) -> bytes:
        """The end of the last block."""
        del index
        self._ending = _ending(reason, stop)
        return self._close()

    def end(self, usage: Usage) -> bytes:
        """Why it ended, what it took, and the end."""
        told = {key: count for key, count in usage_object(usage, self._tier).items() if key != "service_tier"}
        end = event({"type": "message_delta", "delta": self._ending, "usage": told})
        return end + event({"type": "message_stop"})

    def error(self, shape: ErrorShape) -> bytes:
        """What went wrong."""
        return encode_error_event(shape)

    def _in(self, kind: str) -> bytes:
        """What must come before more of a block of this kind."""
        return b"" if self._kind == kind else self._close() + self._begin(kind, _STARTS[kind])

    def _more(self, text: str) -> bytes:
        return b"%b%b}}\n\n" % (self._delta_head, encode(text))

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._kind = kind
        delta_type, field = _DELTAS[kind]
        head = event_head({"type": "content_block_delta", "index": self._blocks}, "delta")
        self._delta_head = head + b'{"type":"%b","%b":' % (delta_type.encode(), field.encode())
        return event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _close(self) -> bytes:
        if self._kind is None:
            return b""
        self._kind = None
        self._blocks += 1
        return event({"type": "content_block_stop", "index": self._blocks - 1})


def _message(request_id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _ending(reason: FinishReason, stop: str | None) -> dict[str, Any]:
    if reason == "stop" and stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": _REASONS[reason], "stop_sequence": None}


def _blocks(choice: Choice, *, shows_thinking: bool) -> Iterator[dict[str, Any]]:
    if choice.reasoning and shows_thinking:
        yield {"type": "thinking", "thinking": choice.reasoning, "signature": ""}
    if choice.text:
        yield {"type": "text", "text": choice.text}
    for call in choice.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)}


def _input(call: CalledTool) -> Any:
    """The arguments as an object; a model that wrote something else has its text shown as it is."""
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": call.arguments}
