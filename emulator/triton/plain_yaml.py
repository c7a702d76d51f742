"""The part of YAML that model.yaml files are written in; Triton's environment has no YAML library.

Maps by indentation, lists of plain values, comments, quoted and plain values, and JSON where a value begins
with `[` or `{`. Anything else is refused, never misread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_KEY = re.compile(r"([A-Za-z_][\w.-]*):(?:\s+(.*))?$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_REFUSED = ("&", "*", "!", "|", ">", "%", "@", "`")

Line = tuple[int, str]


def read_yaml(text: str) -> dict[str, Any]:
    """The map that a document holds. Raises ValueError with the line that is beyond this reader."""
    lines = list(_lines(text))
    found, rest = _map(lines, 0)
    if rest:
        raise ValueError(f"cannot read this YAML at {rest[0][1]!r}: wrong indentation")
    return found


def _lines(text: str) -> Iterator[Line]:
    for raw in text.splitlines():
        line = raw.rstrip() if '"' in raw or "'" in raw else _COMMENT.sub("", raw).rstrip()
        if line.strip() and not line.lstrip().startswith("#") and line != "---":
            yield len(line) - len(line.lstrip()), line.strip()


def _map(lines: list[Line], indent: int) -> tuple[dict[str, Any], list[Line]]:
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        key = _KEY.match(lines[0][1])
        if key is None:
            raise ValueError(f"cannot read this YAML at {lines[0][1]!r}: it is no `key: value`")
        name, value = key[1], key[2]
        lines = lines[1:]
        if value:
            found[name] = _value(value)
        elif lines and lines[0][1].startswith("- ") and lines[0][0] >= indent:
            found[name], lines = _items(lines, lines[0][0])
        elif lines and lines[0][0] > indent:
            found[name], lines = _map(lines, lines[0][0])
        else:
            found[name] = None
    return found, lines


def _items(lines: list[Line], indent: int) -> tuple[list[Any], list[Line]]:
    found = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        found.append(_value(lines[0][1][2:].strip()))
        lines = lines[1:]
    return found, lines


def _value(text: str) -> Any:
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"cannot read this YAML at {text!r}: {error}") from error
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'"):
            raise ValueError(f"cannot read this YAML at {text!r}: the quote does not end")
        return text[1:-1].replace("''", "'")
    if text.startswith(_REFUSED):
        raise ValueError(f"cannot read this YAML at {text!r}: write it plainly")
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
