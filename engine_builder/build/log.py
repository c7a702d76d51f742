"""What a program writes, as lines: without colours, its progress bars thinned, and never much in memory."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BREAK = re.compile(rb"[\r\n]")
_OVERWRITTEN_EVERY_S = 1.0
MAX_LINE_BYTES = 8 * 1024
TAIL_LINES = 40
MAX_LOG_BYTES = 64 * 1024 * 1024


class Lines:
    """Lines of a stream of bytes.

    A line that is written over (`\\r`, as progress bars do) appears once a second at most, and as it was in
    the end. One longer than 8 KiB comes in pieces.
    """

    def __init__(self) -> None:
        self._open = bytearray()
        self._covered = b""
        """The last text that was ended by `\\r`, and has not been shown."""
        self._after_return = False
        self._shown_s = float("-inf")

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """The lines that `data` completes."""
        found: list[bytes] = []
        at = 0
        for end in _BREAK.finditer(data):
            self._add(data[at : end.start()], found)
            at = end.end()
            if end[0] == b"\n":
                self._newline(found)
            else:
                self._return(found, now_s)
        self._add(data[at:], found)
        return [_clean(line) for line in found]

    def end(self) -> list[str]:
        """What was left without an end of line."""
        left = bytes(self._open) or self._covered
        self._open.clear()
        self._covered = b""
        return [_clean(left)] if left else []

    def _add(self, text: bytes, found: list[bytes]) -> None:
        if not text:
            return
        self._after_return = False
        self._open += text
        while len(self._open) > MAX_LINE_BYTES:
            found.append(bytes(self._open[:MAX_LINE_BYTES]))
            del self._open[:MAX_LINE_BYTES]

    def _newline(self, found: list[bytes]) -> None:
        line = bytes(self._open) or self._covered
        if line or not self._after_return:  # else: it was shown when the `\r` came
            found.append(line)
        self._open.clear()
        self._covered, self._after_return = b"", False

    def _return(self, found: list[bytes], now_s: float) -> None:
        if not self._open:
            return
        self._covered, self._after_return = bytes(self._open), True
        self._open.clear()
        if now_s - self._shown_s >= _OVERWRITTEN_EVERY_S:
            found.append(self._covered)
            self._covered, self._shown_s = b"", now_s


def _clean(line: bytes) -> str:
    return _CONTROL.sub("", _ESCAPE.sub("", line.decode("utf-8", "replace"))).rstrip()


class LogFile:
    """The log of a step: a file of at most 64 MiB, and its last lines in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_LOG_BYTES
        self._file: BinaryIO | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def __enter__(self) -> Self:
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: str) -> None:
        """Add one line; what is too much is in `tail` alone."""
        self.tail.append(line)
        if self._file is None or self._left <= 0:
            return
        data = line.encode() + b"\n"
        self._left -= len(data)
        if self._left <= 0:
            data = b"... the log is longer than is kept\n"
        self._file.write(data)
