"""YAML source: documents as plain values that remember their lines, read within bounds.

What could exhaust a process is refused before it is built: text and nesting beyond a limit, and aliases
that would multiply. Duplicate keys, which YAML loaders silently drop, are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARACTERS = 512 * 1024
MAX_NODES = 50_000
MAX_DEPTH = 32

Path = tuple[str | int, ...]
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SourceError(Exception):
    """Text that cannot be read at all; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Document:
    """One document of a file."""

    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    """Line of each field's key or list's item; the empty path is the document itself."""
    problems: list[tuple[Path, str]] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def documents(text: str) -> Iterator[Document]:
    """The non-empty documents of a file. Raises SourceError."""
    if len(text) > MAX_CHARACTERS:
        raise SourceError(1, f"the file is longer than {MAX_CHARACTERS} characters; split it")
    try:
        _check_bounds(text)
        for node in yaml.compose_all(text, Loader=_LOADER):
            document = _Builder().document(node)
            if document.value is not None:
                yield document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SourceError(_line(mark), f"not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise SourceError(1, f"not valid YAML: {error}") from error


def _line(mark: Any) -> int:
    return 1 if mark is None else int(mark.line) + 1


def _check_bounds(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise SourceError(_line(event.start_mark), f"nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise SourceError(_line(event.start_mark), f"more than {MAX_NODES} values in one file; split it")


class _Builder:
    """Builds one document; counts what aliases multiply."""

    def __init__(self) -> None:
        self._nodes = 0
        self._document = Document(None)
        self._scalars = yaml.constructor.SafeConstructor()

    def document(self, node: yaml.Node | None) -> Document:
        if node is not None:
            self._document.lines[()] = _line(node.start_mark)
            self._document.value = self._build(node, ())
        return self._document

    def _build(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise SourceError(_line(node.start_mark), "aliases that expand without bound")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except ValueError as error:
            raise SourceError(_line(node.start_mark), f"not a usable value: {error}") from error

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if not isinstance(key_node, yaml.ScalarNode):
                raise SourceError(_line(key_node.start_mark), "a field's name must be plain text")
            if key in built:
                first = self._document.lines[(*path, key)]
                self._document.problems.append(((*path, key), f"given twice, first in line {first}"))
            self._document.lines[(*path, key)] = _line(key_node.start_mark)
            built[key] = self._build(value_node, (*path, key))
        return built

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._document.lines[path] = _line(node.start_mark)
        return self._build(node, path)


def dotted(path: Path) -> str:
    """`spec.servers[0].http`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def lookup(value: Any, path: Path) -> Any:
    """The value at `path`; KeyError where there is none."""
    for part in path:
        is_item = isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)
        if not is_item and not (isinstance(value, Mapping) and part in value):
            raise KeyError(part)
        value = value[part]
    return value
