"""Reasoning: what a model thinks between `<think>` and `</think>` before it answers.

DeepSeek R1 and QwQ think first, and mostly their template has opened the mark already; Qwen 3 opens it
itself, unless its template was told not to think. Both are one form once it is known how the answer begins.
"""

from __future__ import annotations

from gateway.streaming.parts import Part, PartParser, Reasoning, Text
from gateway.streaming.reader import Reader, Steps

OPEN = "<think>"
CLOSE = "</think>"
MARKS = (OPEN, CLOSE)


class ReasoningParser:
    """Tells thoughts from the answer, which `then` takes apart further."""

    def __init__(self, then: PartParser | None = None, *, thinking: bool, shown: bool = True) -> None:
        """`thinking`: the answer begins within thoughts. Thoughts that are not `shown` are dropped."""
        self._then = then
        self._thinking = thinking
        self._shown = shown
        self._answering = False
        self._reader = Reader()
        self._steps = self._read()
        self._advance()

    def push(self, text: str) -> list[Part]:
        """Parts that have become certain by `text`."""
        if self._answering:
            return self._answer(text)
        self._reader.feed(text)
        return self._advance()

    def flush(self) -> list[Part]:
        """What was held back, once nothing more comes."""
        self._reader.end()
        parts = [] if self._answering else self._advance()
        return parts if self._then is None else [*parts, *self._then.flush()]

    def _advance(self) -> list[Part]:
        done = next(self._steps, True)
        thoughts = self._reader.take() if self._shown else []
        if not done:
            return thoughts
        self._answering = True
        return [*thoughts, *self._answer(self._reader.rest())]

    def _answer(self, text: str) -> list[Part]:
        if self._then is not None:
            return self._then.push(text)
        return [Text(text)] if text else []

    def _read(self) -> Steps[None]:
        """The thoughts, with the white space around them."""
        reader = self._reader
        yield from reader.skip_space()
        if not (yield from reader.word(OPEN)) and not self._thinking:
            reader.retreat()
            return
        yield from reader.skip_space()
        reader.passed()
        if (yield from reader.until((CLOSE,), Reasoning)) is not None:
            yield from reader.skip_space()
            reader.passed()


def opens_within(prompt: str, default: bool) -> bool:
    """Whether an answer to `prompt` begins within thoughts; `default` where the prompt does not tell."""
    tail = prompt[-64:].rstrip()
    if tail.endswith(OPEN):
        return True
    return default and not tail.endswith(CLOSE)
