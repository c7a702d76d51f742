"""Parts: what an answer's text is made of, where a request asks for more than text.

A part parser stands between the assembled text and the events of one choice. Requests without tools, of
models without reasoning, have none and pay nothing for it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from inference.sink import Delta


class Text(NamedTuple):
    """Text for the reader."""

    text: str


class Reasoning(NamedTuple):
    """Text that the model thinks before it answers."""

    text: str


class ToolCall(NamedTuple):
    """A tool call begins; `call` counts the calls of one choice from 0."""

    call: int
    id: str
    name: str


class ToolArguments(NamedTuple):
    """The next piece of a tool call's arguments; all pieces together are one JSON object."""

    call: int
    fragment: str


Part = Text | Reasoning | ToolCall | ToolArguments


class PartParser(Protocol):
    """Takes one choice's text apart as it comes; holds back only what may still become a mark."""

    def push(self, text: str) -> list[Part]:
        """Parts that have become certain by `text`."""

    def flush(self) -> list[Part]:
        """What was held back, once nothing more comes."""


def parts_of(delta: Delta) -> list[Part]:
    """What an OpenAI-HTTP upstream told apart, in the order in which models say it."""
    parts: list[Part] = []
    if delta.reasoning:
        parts.append(Reasoning(delta.reasoning))
    if delta.text:
        parts.append(Text(delta.text))
    for call in delta.calls:
        if call.begun is not None:
            parts.append(ToolCall(call.call, *call.begun))
        if call.arguments:
            parts.append(ToolArguments(call.call, call.arguments))
    return parts
