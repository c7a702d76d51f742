"""ResponsesStream: the events of one streamed response.

Every item of the output is opened, filled and closed by events that name it; the last event has the whole
response. A delta is one JSON string between two byte strings, as in chat streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field

from gateway.api.answers import LogProb
from gateway.api.errors import ErrorShape
from gateway.api.finish import FinishReason
from gateway.api.responses.objects import (
    Status,
    call_item,
    ended,
    failed,
    item_status,
    message_item,
    reasoning_item,
    reasoning_part,
    text_part,
)
from gateway.api.sse import encode, event, event_head
from inference.request import Usage


class _Open(Struct):
    """The item that is being filled; `begun` is id and name of a call."""

    kind: str
    delta_head: bytes
    delta_tail: bytes
    begun: tuple[str, str] | None = None
    pieces: list[str] = field(default_factory=list)


_ADDED = {"message": message_item, "reasoning": reasoning_item}
_DELTAS = {
    "message": "response.output_text.delta",
    "reasoning": "response.reasoning_text.delta",
    "call": "response.function_call_arguments.delta",
}


class ResponsesStream:
    """Encodes one answer; `response` is what it says from its beginning."""

    def __init__(self, request_id: str, response: dict[str, Any]) -> None:
        self._request_id = request_id
        self._response = response
        self._sequence = -1
        self._output: list[dict[str, Any]] = []
        self._open: _Open | None = None
        self._reason: FinishReason = "stop"

    def opening(self, index: int) -> bytes:
        """The response, as it was asked for."""
        del index
        begun = ("response.created", "response.in_progress")
        return b"".join(self._event({"type": name, "response": self._response}) for name in begun)

    def delta(self, index: int, text: str, logprobs: Sequence[LogProb] | None = None) -> bytes:
        """New text of the message."""
        del index, logprobs
        return self._in("message") + self._more(text)

    def reasoning(self, index: int, text: str) -> bytes:
        """New text of what the model thinks."""
        del index
        return self._in("reasoning") + self._more(text)

    def tool_call(self, index: int, call: int, id: str, name: str) -> bytes:  # noqa: A002 - OpenAI's own word
        """A function call begins."""
        del index, call
        return self._close("completed") + self._begin("call", (id, name))

    def tool_arguments(self, index: int, call: int, fragment: str) -> bytes:
        """The next piece of its arguments."""
        del index, call
        return self._more(fragment)

    def finish(self, index: int, reason: FinishReason, stop: str | None = None) -> bytes:
        """The end of the last item; an answer of nothing is an empty message."""
        del index, stop
        self._reason = reason
        opened = b"" if self._open or self._output else self._begin("message")
        return opened + self._close(item_status(reason))

    def end(self, usage: Usage) -> bytes:
        """The whole response."""
        response = ended(self._response, self._output, self._reason, usage)
        return self._event({"type": f"response.{response['status']}", "response": response})

    def error(self, shape: ErrorShape) -> bytes:
        """What went wrong, and the response as far as it came."""
        error = {"type": "error", "code": shape.code, "message": shape.message or "", "param": shape.param}
        response = failed(self._response, self._output, shape)
        return self._event(error) + self._event({"type": "response.failed", "response": response})

    def _event(self, body: dict[str, Any]) -> bytes:
        self._sequence += 1
        return event({**body, "sequence_number": self._sequence})

    def _in(self, kind: str) -> bytes:
        """What must come before more of an item of this kind."""
        if self._open is not None and self._open.kind == kind:
            return b""
        return self._close("completed") + self._begin(kind)

    def _more(self, text: str) -> bytes:
        item = self._open
        assert item is not None
        item.pieces.append(text)
        self._sequence += 1
        return b"%b%b%b%d}\n\n" % (item.delta_head, encode(text), item.delta_tail, self._sequence)

    def _begin(self, kind: str, begun: tuple[str, str] | None = None) -> bytes:
        index = len(self._output)
        if begun is not None:
            item = call_item(self._request_id, index, *begun, "", "in_progress")
        else:
            item = _ADDED[kind](self._request_id, index, None, "in_progress")
        place = self._place(item["id"], kind)
        tail = b',"logprobs":[],"sequence_number":' if kind == "message" else b',"sequence_number":'
        self._open = _Open(kind, event_head({"type": _DELTAS[kind], **place}, "delta"), tail, begun)
        added = {"type": "response.output_item.added", "output_index": index, "item": item}
        return self._event(added) + self._part_event("added", place, kind, "")

    def _close(self, status: Status) -> bytes:
        open_item, self._open = self._open, None
        if open_item is None:
            return b""
        kind, text, index = open_item.kind, "".join(open_item.pieces), len(self._output)
        if open_item.begun is not None:
            item = call_item(self._request_id, index, *open_item.begun, text, status)
        else:
            item = _ADDED[kind](self._request_id, index, text, status)
        place = self._place(item["id"], kind)
        events = self._done_event(place, open_item, text) + self._part_event("done", place, kind, text)
        self._output.append(item)
        done = {"type": "response.output_item.done", "output_index": index, "item": item}
        return events + self._event(done)

    def _place(self, item_id: str, kind: str) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": item_id, "output_index": len(self._output)}
        return place if kind == "call" else {**place, "content_index": 0}

    def _part_event(self, what: str, place: dict[str, Any], kind: str, text: str) -> bytes:
        """Calls have no content parts."""
        if kind == "call":
            return b""
        part = text_part(text) if kind == "message" else reasoning_part(text)
        return self._event({"type": f"response.content_part.{what}", **place, "part": part})

    def _done_event(self, place: dict[str, Any], item: _Open, text: str) -> bytes:
        name = _DELTAS[item.kind].replace(".delta", ".done")
        if item.begun is not None:
            return self._event({"type": name, **place, "name": item.begun[1], "arguments": text})
        logprobs: dict[str, Any] = {"logprobs": []} if item.kind == "message" else {}
        return self._event({"type": name, **place, "text": text, **logprobs})
