"""Prompts: what both sides are asked, and what would be right.

The shipped set is small enough for a model of a few million parameters; a JSONL file of the user's has a line
for each prompt: `prompt` or `messages`, and where there is a right answer `answer`, a text or a list of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine_builder.errors import BuilderError

SHIPPED = Path(__file__).parent / "prompts.jsonl"
FIELDS = ("prompt", "messages", "answer", "task", "match")

Match = Literal["contains", "exact"]


class Prompt(NamedTuple):
    """One question."""

    messages: tuple[dict[str, Any], ...]
    answers: tuple[str, ...] = ()
    """Any of them is right; none: it is not known."""
    task: str = ""
    match: Match = "contains"
    """`contains`: the answer's words, one after another; `exact`: nothing but them."""

    @property
    def text(self) -> str:
        """The last message, for reports."""
        return str(self.messages[-1].get("content", ""))


def shipped() -> list[Prompt]:
    """The set that comes along."""
    return read(SHIPPED)


def read(path: Path) -> list[Prompt]:
    """A file's. Raises BuilderError naming the line and what it needs."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BuilderError(f"--prompts {path}: cannot be read: {error}", "name a JSONL file") from error
    found = list(_prompts(path, lines))
    if not found:
        raise BuilderError(f"--prompts {path}: is empty", 'write {"prompt": ..., "answer": ...} lines')
    return found


def _prompts(path: Path, lines: list[str]) -> Iterator[Prompt]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _prompt(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise BuilderError(
                f"--prompts {path}, line {number}: {error}",
                'each line is an object such as {"prompt": "2 + 2?", "answer": "4"}; '
                f"fields: {', '.join(FIELDS)}",
            ) from error


def _prompt(fields: Any) -> Prompt:
    if not isinstance(fields, dict):
        raise TypeError("is not an object")
    if unknown := fields.keys() - set(FIELDS):
        raise ValueError(f"unknown field {min(unknown)!r}")
    if ("prompt" in fields) == ("messages" in fields):
        raise ValueError("needs `prompt` or `messages`, and not both")
    messages = fields.get("messages", [{"role": "user", "content": fields.get("prompt")}])
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise ValueError("needs a text, or a list of messages with `role` and `content`")
    answers = fields.get("answer", [])
    answers = [answers] if isinstance(answers, str | int) else answers
    match = fields.get("match", "contains")
    if match not in {"contains", "exact"}:
        raise ValueError(f"`match` must be contains or exact, not {match!r}")
    return Prompt(tuple(messages), tuple(map(str, answers)), str(fields.get("task", "")), match)


def _is_message(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
