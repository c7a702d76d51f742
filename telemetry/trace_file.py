"""The trace file: JSON lines, one span a line, shared by every worker.

Each batch is one write to a file opened with O_APPEND, so that lines of several processes never mix. Past
its size the file becomes `<name>.1`, replacing the older one.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from telemetry.span_record import SpanRecord

_log = logging.getLogger(__name__)


class TraceFile:
    """Appends spans to the trace file."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = self._open()

    def write(self, spans: Sequence[SpanRecord]) -> bool:
        """Append `spans` in one piece; False, and a warning, when the file does not take them."""
        lines = self._encoder.encode_lines(spans)
        try:
            self._follow_or_rotate(len(lines))
            return os.write(self._fd, lines) == len(lines)
        except OSError as error:
            _log.warning("trace file not written", extra={"path": str(self._path), "error": str(error)})
            return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _follow_or_rotate(self, incoming: int) -> None:
        if self._moved():
            self._reopen()
        size = os.fstat(self._fd).st_size
        if size and size + incoming > self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        """Move the full file aside; of several workers the one that holds the lock first does it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if not self._moved():
                self._path.replace(previous_file(self._path))
        finally:
            self._reopen()

    def _reopen(self) -> None:
        """Closing the old descriptor also gives back its lock."""
        os.close(self._fd)
        self._fd = self._open()

    def _moved(self) -> bool:
        mine = os.fstat(self._fd)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return (mine.st_ino, mine.st_dev) != (there.st_ino, there.st_dev)


def previous_file(path: Path) -> Path:
    """Where the file before the current one is kept."""
    return path.with_name(f"{path.name}.1")


def read_spans(path: Path) -> Iterator[SpanRecord]:
    """Every readable span, oldest file first; a line cut off by a crash is left out."""
    decoder = msgspec.json.Decoder(SpanRecord)
    for file in (previous_file(path), path):
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:
                continue
