"""Logs: one JSON object (or one line of text) per event, written by a thread of its own.

A line is a constant message and its data as fields: `logger.info("worker started", extra={"pid": 7})`.
A line about a request has its `trace_id`. Keys and content are removed before a line leaves the thread
that wrote it.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final, TextIO

import msgspec

from telemetry.config import TelemetryConfig
from telemetry.redaction import Redactor

_log = logging.getLogger(__name__)

_QUEUE_LINES: Final = 10_000
_STANDARD_FIELDS: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": "", "taskName": ""}
)


class Logs:
    """The process's log output, from construction to `close`."""

    def __init__(self, config: TelemetryConfig, stream: TextIO | None = None) -> None:
        self._lines: queue.Queue[Any] = queue.Queue(_QUEUE_LINES)
        self._handler = _LineHandler(self._lines, _formatter(config))
        output = logging.StreamHandler(stream or sys.stderr)
        output.setFormatter(logging.Formatter("%(message)s"))
        self._listener = _Listener(self._lines, output)
        self._installed = ExitStack()
        self._installed.enter_context(_as_output(self._handler, config.log_level))
        self._listener.start()

    @property
    def dropped(self) -> int:
        """Lines lost because the output did not keep up."""
        return self._handler.dropped

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is waiting and put the former logging set-up back. False: the output hangs."""
        if self.dropped:
            _log.warning("log lines dropped: the output was too slow", extra={"lines": self.dropped})
        self._installed.close()
        closing = threading.Thread(target=self._listener.stop, name="logs-close", daemon=True)
        closing.start()
        closing.join(timeout_s)
        return not closing.is_alive()


@contextmanager
def logs_at_once(config: TelemetryConfig, stream: TextIO | None = None) -> Iterator[None]:
    """Log output of a process that forks: the thread that logs writes, as it has to be the only one."""
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(_formatter(config))
    with _as_output(output, config.log_level):
        yield


@contextmanager
def _as_output(handler: logging.Handler, level: str) -> Iterator[None]:
    """`handler` in place of the former logging set-up, which comes back at the end."""
    root = logging.getLogger()
    before, before_level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(level)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(before_level)


class _Listener(QueueListener):
    """Waits for room to say that it is the end; the standard one fails when the queue is full."""

    def __init__(self, lines: queue.Queue[Any], output: logging.Handler) -> None:
        super().__init__(lines, output)
        self._lines = lines

    def enqueue_sentinel(self) -> None:
        self._lines.put(None)


class _LineHandler(QueueHandler):
    """Makes the line in the thread that logs, so that later changes of a field's value don't show."""

    def __init__(self, lines: queue.Queue[Any], formatter: logging.Formatter) -> None:
        super().__init__(lines)
        self.setFormatter(formatter)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        line = self.format(record)
        return logging.LogRecord(
            record.name, record.levelno, record.pathname, record.lineno, line, None, None
        )

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str, redactor: Redactor) -> None:
        super().__init__()
        self._service = service
        self._redactor = redactor
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self._redactor.text(record.getMessage()),
            "service": self._service,
            "pid": record.process,
        }
        line |= _fields(record, self._redactor)
        if record.exc_info and record.exc_info[1]:
            line["exception"] = self._redactor.exception(record.exc_info[1])
        return self._encoder.encode(line).decode()


class _TextFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        message = self._redactor.text(record.getMessage())
        fields = "".join(f" {name}={value}" for name, value in _fields(record, self._redactor).items())
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {message}{fields}"
        if record.exc_info and record.exc_info[1]:
            return f"{line}\n{self._redactor.exception(record.exc_info[1])}"
        return line


def _formatter(config: TelemetryConfig) -> logging.Formatter:
    redactor = Redactor(config.capture_content)
    if config.log_format == "text":
        return _TextFormatter(redactor)
    return _JsonFormatter(config.service_name, redactor)


def _fields(record: logging.LogRecord, redactor: Redactor) -> dict[str, object]:
    """What was given as `extra`, cleaned."""
    return {
        name: redactor.field(name, value)
        for name, value in vars(record).items()
        if name not in _STANDARD_FIELDS and not name.startswith("_")
    }


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
