"""Pythonic: `[f(a=1), g(b="x")]`, as Llama 3.2 and Llama 4 write it; Llama 4 puts marks around it.

The expressions are read as data, never evaluated. Source of the form: Meta's prompt formats of Llama 3.2 and
4; vLLM `--tool-call-parser pythonic` and `llama4_pythonic`.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

from gateway.streaming.parts import Part
from gateway.streaming.reader import MAX_HELD_CHARACTERS, Reader, Steps
from gateway.streaming.tool_parsers.base import MAX_NAME_CHARACTERS, ToolParser

START = "<|python_start|>"
END = "<|python_end|>"
MARKS = (START, END)
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_JSON_NAMES = {"true": True, "false": False, "null": None}
_NAME = re.compile(r"[^\W\d]\w*")


class PythonicParser(ToolParser):
    """Calls of known tools at the beginning of the answer, or after Llama 4's mark.

    An argument is let out when it is complete: its value could not be written as JSON before.
    """

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.skip_space()
        yield from reader.word(START)
        yield from reader.skip_space()
        if not (yield from self._list()):
            reader.retreat()
        while (yield from reader.until((START,))) is not None:
            yield from reader.skip_space()
            if not (yield from self._list()):
                reader.give_back(START)

    def _list(self) -> Steps[bool]:
        """Pass a list of calls; False, and nothing is passed, where there is none."""
        reader = self._reader
        if not (yield from reader.skip("[")) or not (yield from self._python_call()):
            return False
        while True:
            yield from reader.skip_space()
            if (yield from reader.skip(",")) and (yield from self._python_call()):
                continue
            reader.retreat()
            yield from self._close()
            return True

    def _close(self) -> Steps[None]:
        """Pass the end of the list, and white space after it."""
        reader = self._reader
        yield from reader.skip_space()
        for mark in ("]", END):
            if (yield from reader.word(mark)):
                yield from reader.skip_space()
                reader.passed()
        reader.retreat()

    def _python_call(self) -> Steps[bool]:
        reader = self._reader
        yield from reader.skip_space()
        name = yield from reader.run(_fits_name, MAX_NAME_CHARACTERS)
        if name not in self._names or not (yield from reader.skip("(")):
            return False
        argument: Callable[[str], Part] | None = None
        while True:
            yield from reader.skip_space()
            if argument is not None and (yield from reader.skip(",")):
                yield from reader.skip_space()
            if (yield from reader.skip(")")):
                reader.passed()
                reader.give((argument or self._begin(name))("}" if argument else "{}"))
                return True
            written = yield from _argument(reader)
            if written is None:
                return argument is not None and (yield from self._broken(argument))
            reader.passed()
            begun = argument is not None
            argument = argument or self._begin(name)
            reader.give(argument((", " if begun else "{") + written))

    def _broken(self, argument: Callable[[str], Part]) -> Steps[bool]:
        """The rest of a call that goes wrong stays as it is written: nobody takes it for valid arguments."""
        yield from self._reader.until((END,), argument)
        self._reader.retreat()
        return True


def _fits_name(char: str) -> bool:
    return char.isalnum() or char in "_.-"


def _argument(reader: Reader) -> Steps[str | None]:
    """Read `name=value` as a member of a JSON object; None where it is none."""
    name = yield from reader.run(_fits_name, MAX_NAME_CHARACTERS)
    yield from reader.skip_space()
    if not _NAME.fullmatch(name) or not (yield from reader.skip("=")):
        return None
    source = yield from _expression(reader)
    value = None if source is None else _json_of(source)
    if value is None:
        return None
    return f"{json.dumps(name)}: {value}"


def _expression(reader: Reader) -> Steps[str | None]:
    """Read a value up to the comma or bracket after it; None where the text ends first."""
    read: list[str] = []
    closing: list[str] = []
    while reader.held < MAX_HELD_CHARACTERS:
        char = yield from reader.peek()
        if not char or (not closing and char in ",)"):
            return "".join(read) if char else None
        if char in "\"'":
            text = yield from _quoted(reader, char)
            if text is None:
                return None
            read.append(text)
            continue
        yield from reader.skip(char)
        read.append(char)
        if char in _CLOSES:
            closing.append(_CLOSES[char])
        elif char in ")]}" and closing.pop() != char:
            return None
    return None


def _quoted(reader: Reader, quote: str) -> Steps[str | None]:
    """Read a string with its quotes, one or three."""
    if (yield from reader.word(quote * 3)):
        mark = quote * 3
    else:
        yield from reader.skip(quote)
        mark = quote
    read = [mark]
    while reader.held < MAX_HELD_CHARACTERS:
        if (yield from reader.word(mark)):
            return "".join([*read, mark])
        char = yield from reader.peek()
        if not char:
            return None
        yield from reader.skip(char)
        read.append(char)
        if char == "\\":
            escaped = yield from reader.peek()
            yield from reader.skip(escaped or " ")
            read.append(escaped)
    return None


def _json_of(source: str) -> str | None:
    """A Python literal as JSON; None where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for escapes in strings that Python does not know
            tree = ast.parse(source.strip(), mode="eval")
        return json.dumps(_value(tree.body), ensure_ascii=False, allow_nan=False)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    """The value of a literal; words of JSON are taken too. Raises ValueError for everything else."""
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, str | int | float):
            return value
        case ast.Name(id=word) if word in _JSON_NAMES:
            return _JSON_NAMES[word]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if type(value) in (int, float):
            return -value  # type: ignore[operator]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
    raise ValueError("not a literal")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("not a key of an object")
