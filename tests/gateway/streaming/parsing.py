"""What parsers make of a text, however it is cut into chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from gateway.streaming.parts import Part, PartParser, Reasoning, Text, ToolArguments, ToolCall
from gateway.streaming.tool_parsers import FAMILIES
from model_registry.entities import ToolParserName

NAMES = frozenset({"get_weather", "add"})
Seen = list[tuple[str, ...]]
"""("text", …), ("reasoning", …) and ("call", id, name, arguments), neighbours of a kind joined."""


def counted_ids() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"id{next(numbers)}"


def tool_parser(family: ToolParserName) -> PartParser:
    return FAMILIES[family].parser(NAMES, counted_ids())


def parse(parser: PartParser, chunks: Iterable[str]) -> Seen:
    """Everything `parser` says; its parts must come in an order that a client can follow."""
    parts = [part for chunk in chunks for part in parser.push(chunk)]
    parts += parser.flush()
    return joined(parts)


def joined(parts: Sequence[Part]) -> Seen:
    seen: list[list[str]] = []
    calls: list[list[str]] = []
    for part in parts:
        match part:
            case Text(text) | Reasoning(text):
                assert text, "an empty part says nothing"
                kind = "text" if isinstance(part, Text) else "reasoning"
                if seen and seen[-1][0] == kind:
                    seen[-1][1] += text
                else:
                    seen.append([kind, text])
            case ToolCall(call, call_id, name):
                assert call == len(calls), "calls count from 0"
                calls.append(["call", call_id, name, ""])
                seen.append(calls[-1])
            case ToolArguments(call, fragment):
                assert call == len(calls) - 1, "arguments belong to the newest call"
                calls[-1][3] += fragment
    return [tuple(item) for item in seen]


def cut(text: str, borders: Iterable[int]) -> list[str]:
    """`text` in chunks, cut at `borders`."""
    ends = [*sorted({border for border in borders if 0 < border < len(text)}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]
