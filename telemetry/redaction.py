"""Redaction: what must never reach a log, whoever wrote the line.

Values of fields that are named like secrets or like content are replaced; keys and passwords inside other
text are replaced where they are recognised by their form.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

REDACTED: Final = "[redacted]"

_SECRET_NAME = re.compile(
    r"(^|[_.-])(authorization|cookie|password|passwd|secret|credential|bearer|"
    r"(api|admin|private)[_-]?key|(access|auth|refresh)[_-]?token)s?($|[_.-])",
    re.IGNORECASE,
)
_CONTENT_NAME = re.compile(
    r"^(prompt|prompt_text|prompt_ids|messages?_content|messages|content|completion|completions|output_text|"
    r"input|inputs|input_text|text|delta|body|arguments|tool_calls|chat_template)$",
    re.IGNORECASE,
)
_SECRETS_IN_TEXT: Final = (
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=\S*[0-9=])[\w.~+/=-]{8,}"), r"\1 " + REDACTED),
    (re.compile(r"\b(sk|eh|hf|nvapi|ghp|glpat)[-_][A-Za-z0-9_-]{8,}"), REDACTED),
    (re.compile(r"(\w+://[^\s/:@]*):[^\s/@]+@"), r"\1:" + REDACTED + "@"),
)
_MAX_DEPTH: Final = 6
_MAX_CAUSES: Final = 8
_QUOTING_ERRORS: Final = (ValueError, LookupError, msgspec.MsgspecError)


class Redactor:
    """Cleans fields of log lines; with `capture_content` only secrets are removed."""

    def __init__(self, capture_content: bool = False) -> None:
        self._capture_content = capture_content

    def field(self, name: str, value: object) -> object:
        """`value` as it may be logged under `name`."""
        return self._field(name, value, 0)

    def text(self, text: str) -> str:
        """`text` without keys and passwords."""
        for pattern, replacement in _SECRETS_IN_TEXT:
            text = pattern.sub(replacement, text)
        return text

    def _field(self, name: str, value: object, depth: int) -> object:
        if _SECRET_NAME.search(name) or (not self._capture_content and _CONTENT_NAME.match(name)):
            return None if value is None else REDACTED
        return self._value(value, depth)

    def exception(self, error: BaseException) -> str:
        """The traceback with its causes, oldest first.

        Messages of parsing and look-up errors are left out unless content may be logged: they quote what
        a client sent.
        """
        parts: list[str] = []
        at: BaseException | None = error
        while at is not None and len(parts) < _MAX_CAUSES:
            frames = "".join(traceback.format_tb(at.__traceback__))
            parts.append(f"{frames}{type(at).__qualname__}: {self._message(at)}")
            at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
        return "\n".join(reversed(parts))

    def _message(self, error: BaseException) -> str:
        if isinstance(error, _QUOTING_ERRORS) and not self._capture_content:
            return REDACTED
        return self.text(str(error))

    def _value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= _MAX_DEPTH:
            return REDACTED
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {str(key): self._field(str(key), item, depth + 1) for key, item in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(
            value, bytes | bytearray | memoryview
        ):
            return [self._value(item, depth + 1) for item in value]
        return self.text(str(value)) if not isinstance(value, bytes | bytearray | memoryview) else REDACTED
