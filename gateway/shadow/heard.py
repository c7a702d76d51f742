"""Heard: one answer as it is compared, and how two of them compare. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from gateway.streaming.parts import Part, PartParser, Reasoning, Text, ToolArguments, ToolCall
from gateway.streaming.text import Assembler
from inference.errors import InferenceError

_BETWEEN = "\x1f"


class Heard(NamedTuple):
    """What a client would have been told, and when."""

    text: str | None
    """Thoughts, answer and tool calls as one text; None: it was not kept."""
    reason: str
    tokens: int | None
    total_s: float | None = None
    """From sending the request to the end of the answer; None: it took more than one attempt."""
    ttft_s: float | None = None
    """None also where the answer was not streamed, or came from a server that begins before its first."""

    @property
    def s_per_token(self) -> float | None:
        """After the first token, where that was seen; else of the whole answer."""
        if self.total_s is None or not self.tokens:
            return None
        if self.ttft_s is None:
            return self.total_s / self.tokens
        return (self.total_s - self.ttft_s) / (self.tokens - 1) if self.tokens > 1 else None


class Comparison(NamedTuple):
    """A copy's answer beside the client's."""

    differs: bool | None
    """In its text; None: that was not to be compared."""
    agreement: float
    """Share of the longer text that is the same, up to the first difference."""
    other_reason: bool | None
    """None: answers of this kind have none."""
    length: float | None
    """Tokens of the copy's answer for one of the client's."""
    pace: float | None
    ttft: float | None


def compare(client: Heard, copy: Heard, *, repeatable: bool) -> Comparison:
    """`repeatable`: the same request has the same answer, but for numerics."""
    differs, agreement = None, 0.0
    if repeatable and client.text is not None and copy.text is not None:
        differs, agreement = client.text != copy.text, agreed(client.text, copy.text)
    whole = client.ttft_s is None or copy.ttft_s is None
    ours = copy._replace(ttft_s=None) if whole else copy
    theirs = client._replace(ttft_s=None) if whole else client
    return Comparison(
        differs,
        agreement,
        client.reason != copy.reason,
        _ratio(copy.tokens, client.tokens),
        _ratio(ours.s_per_token, theirs.s_per_token),
        _ratio(ours.ttft_s, theirs.ttft_s),
    )


def agreed(one: str, other: str) -> float:
    """Share of the longer text before the first difference; 1 for equal texts."""
    longer = max(len(one), len(other))
    if longer == 0:
        return 1.0
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(
        len(one), len(other)
    )) / longer  # fmt: skip


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other and one > 0 and other > 0 else None


def text_of(assembler: Assembler, make: Callable[[], Assembler], parser: PartParser | None) -> str:
    """What a client is shown of what an engine generated, cut at stop strings."""
    again = make()
    ids = assembler.ids
    shown = again.tokens(ids, None) if ids else again.text(assembler.said())
    shown += again.flush()
    if parser is None:
        return canonical([Text(shown)])
    return canonical([*parser.push(shown), *parser.flush()])


def canonical(parts: Iterable[Part]) -> str:
    """Thoughts, text and tool calls in one order, without ids of calls and white space around."""
    thoughts, text, calls = "", "", ""
    for part in parts:
        match part:
            case Reasoning(more):
                thoughts += more
            case Text(more):
                text += more
            case ToolCall(_, _, name):
                calls += f"{_BETWEEN}{name}"
            case ToolArguments(_, fragment):
                calls += fragment
    return _BETWEEN.join((thoughts.strip(), text.strip(), calls))


class Upstream(NamedTuple):
    """What an OpenAI-HTTP upstream's own bytes say."""

    text: str
    reason: str | None


def upstream_text(body: bytes) -> Upstream | None:
    """Of a whole answer, or of events with or without the framing of HTTP chunks; None: not understood."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")] or [body]
    parts: list[Part] = []
    reason: str | None = None
    try:
        for line in lines:
            if line.strip() == b"[DONE]":
                continue
            for choice in msgspec.json.decode(line).get("choices") or ():
                parts += _parts_of(choice)
                reason = choice.get("finish_reason") or reason
    except (msgspec.MsgspecError, AttributeError, TypeError, LookupError):
        return None
    return Upstream(canonical(parts), reason)


def _parts_of(choice: dict[str, Any]) -> list[Part]:
    said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
    parts: list[Part] = [
        Reasoning(said.get("reasoning_content") or said.get("reasoning") or ""),
        Text(said.get("content") or said.get("refusal") or ""),
    ]
    for call in said.get("tool_calls") or ():
        function = call.get("function") or {}
        if name := function.get("name"):
            parts.append(ToolCall(0, "", name))
        parts.append(ToolArguments(0, function.get("arguments") or ""))
    return parts


COUNTED_NOT = frozenset({"busy", "cancelled", "overtaken", "adapter_missing"})
"""Outcomes of attempts that say nothing against an engine."""


def counts_as_error(error: str) -> bool:
    """Whether an attempt that ended so speaks against the deployment."""
    return error not in COUNTED_NOT


def is_error(outcome: object) -> bool:
    """Of a copy."""
    return isinstance(outcome, InferenceError) and counts_as_error(outcome.outcome)
