"""Answers as lists of parts, cut up at random, for every encoder of events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from gateway.api.answers import CalledTool, Choice
from gateway.operations import Events
from gateway.streaming.parts import Part, Reasoning, Text, ToolArguments, ToolCall

TEXTS = st.text(min_size=1, max_size=40)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])


@st.composite
def answers(draw: st.DrawFn) -> Choice:
    """A finished answer, as one that is not streamed would be told."""
    calls = draw(st.lists(st.tuples(TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=3)), max_size=3))
    return Choice(
        text=draw(st.text(max_size=60)),
        finish_reason=draw(REASONS),
        reasoning=draw(st.none() | TEXTS),
        tool_calls=[
            CalledTool(f"{i}{id_}", name, _json(given)) for i, (id_, name, given) in enumerate(calls)
        ],
    )


def pieces_of(choice: Choice, draw: Any) -> Iterator[Part]:
    """The answer's parts in the order of models, each in pieces of random lengths."""
    for piece in _cut(choice.reasoning or "", draw):
        yield Reasoning(piece)
    for piece in _cut(choice.text, draw):
        yield Text(piece)
    for number, call in enumerate(choice.tool_calls):
        yield ToolCall(number, call.id, call.name)
        for piece in _cut(call.arguments, draw):
            yield ToolArguments(number, piece)


def encoded(events: Events, parts: list[Part], choice: Choice) -> Iterator[bytes]:
    """What a client is sent up to the end of the choice."""
    yield events.opening(0)
    for part in parts:
        match part:
            case Text(text):
                yield events.delta(0, text)
            case Reasoning(text):
                yield events.reasoning(0, text)
            case ToolCall(call, call_id, name):
                yield events.tool_call(0, call, call_id, name)
            case ToolArguments(call, fragment):
                yield events.tool_arguments(0, call, fragment)
    yield events.finish(0, choice.finish_reason, choice.stop)


def named_events(sent: bytes) -> list[dict[str, Any]]:
    """The data of every event; the event's name is its `type`, and nothing else is sent."""
    found = []
    for event in sent.split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        found.append(_decoded(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    assert sent.endswith(b"\n\n")
    return found


def _cut(text: str, draw: Any) -> Iterator[str]:
    while text:
        length = draw(st.integers(1, len(text)))
        yield text[:length]
        text = text[length:]


def _json(value: Any) -> str:
    return json.dumps(value)


def _decoded(data: bytes) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(data)
    return decoded
