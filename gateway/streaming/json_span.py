"""JSON span: where one JSON value ends, in text that comes in pieces.

Strings and brackets are followed and nothing is built: the text itself is what is handed on.
"""

from __future__ import annotations

import re

MAX_DEPTH = 128
"""Brackets within brackets; beyond it the value counts as broken."""
_IN_STRING = re.compile(r'["\\]')
_IN_CONTAINER = re.compile(r'["{}\[\]]|[^\s0-9+\-.eEtrufalsn,:]')
_SCALAR_END = re.compile(r"[^0-9+\-.eEtrufalsn]")
_CLOSES = {"{": "}", "[": "]"}


class JsonSpan:
    """One value: an object, an array, a string, a number or a word."""

    __slots__ = ("_closing", "_escaped", "_kind", "_string", "broken", "done")

    def __init__(self) -> None:
        self.done = False
        self.broken = False
        """What stands at the index that `feed` returned cannot stand there."""
        self._kind = ""
        self._closing: list[str] = []
        """The brackets that are to close what is open, innermost last."""
        self._string = False
        self._escaped = False

    def feed(self, text: str, at: int) -> int:
        """Follow the value in `text` from `at`; the index after what belongs to it."""
        while at < len(text) and not self.done and not self.broken:
            if self._string:
                at = self._in_string(text, at)
            elif not self._kind:
                at = self._begin(text, at)
            elif self._kind == "scalar":
                at = self._in_scalar(text, at)
            else:
                at = self._in_container(text, at)
        return at

    def _begin(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._kind, self._string = "string", True
        elif char in _CLOSES:
            self._kind = "container"
            self._closing.append(_CLOSES[char])
        elif _SCALAR_END.match(char):
            self.broken = True
            return at
        else:
            self._kind = "scalar"
        return at + 1

    def _in_string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _IN_STRING.search(text, at)
        if found is None:
            return len(text)
        if found[0] == "\\":
            self._escaped = True
        else:
            self._string = False
            self.done = self._kind == "string"
        return found.end()

    def _in_scalar(self, text: str, at: int) -> int:
        found = _SCALAR_END.search(text, at)
        if found is None:
            return len(text)
        self.done = True
        return found.start()

    def _in_container(self, text: str, at: int) -> int:
        found = _IN_CONTAINER.search(text, at)
        if found is None:
            return len(text)
        char = found[0]
        if char == '"':
            self._string = True
        elif char in _CLOSES and len(self._closing) < MAX_DEPTH:
            self._closing.append(_CLOSES[char])
        elif char == self._closing[-1]:
            self._closing.pop()
            self.done = not self._closing
        else:
            self.broken = True
            return found.start()
        return found.end()
