"""ToolParser: what the parsers of all families share.

A family is a generator over a `Reader`: it gives text as it is, `ToolCall` once a call's name and the
beginning of its arguments are certain, and the arguments as they come. What only looks like a call is text.
Arguments that break off or go wrong stay as the model wrote them, as they do at OpenAI.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gateway.streaming.parts import Part, ToolArguments, ToolCall
from gateway.streaming.reader import Reader, Steps

MAX_NAME_CHARACTERS = 256
_ARGUMENTS = ("arguments", "parameters")


class ToolParser:
    """Takes one answer apart; `names` are the tools that it may call."""

    def __init__(self, names: frozenset[str], make_id: Callable[[], str]) -> None:
        self._names = names
        self._make_id = make_id
        self._calls = 0
        self._reader = Reader()
        self._steps = self._read()
        self._advance()

    def push(self, text: str) -> list[Part]:
        """Parts that have become certain by `text`."""
        if not text:
            return []
        self._reader.feed(text)
        self._advance()
        return self._reader.take()

    def flush(self) -> list[Part]:
        """What was held back, once nothing more comes."""
        self._reader.end()
        self._advance()
        return self._reader.take()

    def _advance(self) -> None:
        next(self._steps, None)

    def _read(self) -> Steps[None]:
        """The family's form, from the beginning of the answer to its end."""
        raise NotImplementedError

    def _begin(self, name: str, call_id: str | None = None) -> Callable[[str], Part]:
        """A call begins; what makes parts of its arguments."""
        call, self._calls = self._calls, self._calls + 1
        self._reader.give(ToolCall(call, call_id or self._make_id(), name))
        return partial(ToolArguments, call)

    def _arguments(self, argument: Callable[[str], Part], until: tuple[str, ...] = ()) -> Steps[bool]:
        """Give away a call's arguments; where they go wrong, all up to one of `until`, which stays."""
        reader = self._reader
        if (yield from reader.pass_value(argument)):
            return True
        yield from reader.until(until, argument)
        reader.retreat()
        return False

    def _call(self, until: tuple[str, ...] = (), *, known_only: bool = False) -> Steps[bool]:
        """Pass one call that is written as an object; False, and nothing is passed, where it is none."""
        reader = self._reader
        head = yield from _head(reader)
        if head is None or (known_only and head.name not in self._names):
            return False
        reader.passed()
        argument = self._begin(head.name)
        if head.arguments is not None:
            reader.give(argument(head.arguments))
        elif (yield from self._arguments(argument, until)):
            yield from _rest(reader)
        return True

    def _calls_in_list(self, *, known_only: bool = False) -> Steps[bool]:
        """Pass the calls of an array from after its `[`; False, and nothing passed, where it has none."""
        reader = self._reader
        yield from reader.skip_space()
        if not (yield from self._call(known_only=known_only)):
            return False
        while True:
            yield from reader.skip_space()
            if (yield from reader.skip("]")):
                reader.passed()
                return True
            yield from reader.skip(",")
            yield from reader.skip_space()
            if not (yield from self._call()):
                reader.retreat()
                return True


class _Head(NamedTuple):
    """A call up to its arguments."""

    name: str
    arguments: str | None
    """Set where the whole object has been read; else they come next."""


def _head(reader: Reader) -> Steps[_Head | None]:
    """Read an object up to the arguments of the call that it is; None where it is no call."""
    if not (yield from reader.skip("{")):
        return None
    name: str | None = None
    arguments: str | None = None
    while True:
        yield from reader.skip_space()
        if (yield from reader.skip("}")):
            return None if name is None else _Head(name, arguments or "{}")
        if (yield from reader.skip(",")):
            continue
        key = yield from _key(reader)
        if key in _ARGUMENTS and name is not None and (yield from reader.peek()) == "{":
            return _Head(name, None)
        value = yield from reader.value()
        if key is None or value is None:
            return None
        if key in _ARGUMENTS and (arguments := _object_text(value)) is None:
            return None
        if key == "name" and (name := _name(value)) is None:
            return None


def _rest(reader: Reader) -> Steps[None]:
    """Pass what an object holds after a call's arguments, up to its `}`."""
    while True:
        yield from reader.skip_space()
        if (yield from reader.skip("}")):
            reader.passed()
            return
        if (yield from reader.skip(",")):
            continue
        key = yield from _key(reader)
        if key is None or (yield from reader.value()) is None:
            reader.retreat()
            return


def _key(reader: Reader) -> Steps[str | None]:
    """Read a key and its colon."""
    if (yield from reader.peek()) != '"':
        return None
    key = _string((yield from reader.value()) or "")
    yield from reader.skip_space()
    if not (yield from reader.skip(":")):
        return None
    yield from reader.skip_space()
    return key


def _string(text: str) -> str | None:
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _name(text: str) -> str | None:
    name = _string(text)
    return name if name and len(name) <= MAX_NAME_CHARACTERS else None


def _object_text(text: str) -> str | None:
    """Arguments as the text of an object: models also write them as a string that holds it, or as null."""
    if text == "null":
        return "{}"
    inner = text if text.startswith("{") else (_string(text) or "").strip()
    return inner if inner.startswith("{") and inner.endswith("}") else None
