"""Validation: an input file is read once, before any row runs; every mistake is told with its line.

What it finds in order it indexes: where each row begins. What only the run of a row can tell (a parameter
out of range, a prompt that is too long) is that row's own failure, not the job's.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import IO, NamedTuple

import msgspec

from gateway.api.errors import shape_of
from gateway.batch_jobs.lines import InputRow, read_asked, read_row
from router.errors import RouterError
from tenancy.batch_jobs.entities import RowError

MAX_ERRORS = 100
MAX_CUSTOM_ID_CHARS = 512
_BREATHE_EVERY = 32
"""Lines after which other threads, the event loop's above all, get their turn."""


class Rules(NamedTuple):
    """What a job's rows are held to."""

    endpoint: str
    max_rows: int
    max_line_bytes: int
    allow: Callable[[str], object]
    """Raises RouterError for a model that the job's tenant may not use."""


class Index(NamedTuple):
    """Where the rows are: row i is `starts[i]` up to `ends[i]` of the file."""

    starts: array[int]
    ends: array[int]

    def pack(self) -> bytes:
        return b"".join(
            begin.to_bytes(8, "little") + end.to_bytes(8, "little")
            for begin, end in zip(self.starts, self.ends, strict=True)
        )


INDEX_ENTRY_BYTES = 16


def unpack_entry(entry: bytes) -> tuple[int, int]:
    """Begin and end of one row."""
    return int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:], "little")


class Validated(NamedTuple):
    """What reading the whole file came to; `rows` is of use only without errors."""

    rows: Index
    model: str
    errors: tuple[RowError, ...]

    @classmethod
    def failed(cls, error: RowError) -> Validated:
        """Nothing could be read."""
        return cls(Index(array("Q"), array("Q")), "", (error,))


class _LineError(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def validate(file: IO[bytes], rules: Rules) -> Validated:
    """Read `file`; blocks for as long as that takes."""
    reading = _Reading(rules)
    at = 0
    for number, line in enumerate(_lines(file, rules.max_line_bytes), start=1):
        if number % _BREATHE_EVERY == 0:
            time.sleep(0)
        begin, at = at, at + len(line)
        reading.line(number, line, begin)
        if reading.is_enough:
            break
    if not reading.errors and not reading.index.starts:
        reading.errors.append(RowError("empty_file", "The input file holds no request. Give one per line."))
    return Validated(reading.index, reading.model, tuple(reading.errors))


def _lines(file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    """Lines with their newline; one that is too long comes cut, and is the last."""
    while line := file.readline(max_bytes + 2):
        yield line
        if len(line) > max_bytes and not line.endswith(b"\n"):
            return


class _Reading:
    """The state of one validation."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._seen: dict[bytes, int] = {}
        self.index = Index(array("Q"), array("Q"))
        self.model = ""
        self.errors: list[RowError] = []
        self.is_enough = False

    def line(self, number: int, line: bytes, begin: int) -> None:
        if not line.strip():
            return
        try:
            self._check(number, line)
            self.index.starts.append(begin)
            self.index.ends.append(begin + len(line))
        except _LineError as error:
            self.errors.append(RowError(error.code, str(error), error.param, number))
        self.is_enough = self.is_enough or len(self.errors) >= MAX_ERRORS

    def _check(self, number: int, line: bytes) -> None:
        rules = self._rules
        if len(self.index.starts) >= rules.max_rows:
            self.is_enough = True
            raise _LineError(
                "too_many_rows", f"The file holds more than the {rules.max_rows} requests allowed. Split it."
            )
        if len(line) > rules.max_line_bytes:
            raise _LineError(
                "line_too_long", f"This line is longer than the {rules.max_line_bytes} bytes allowed here."
            )
        row = _parsed(line)
        self._check_id(row.custom_id, number)
        if row.method != "POST":
            raise _LineError("invalid_method", "`method` must be 'POST'.", "method")
        if row.url != rules.endpoint:
            raise _LineError(
                "invalid_url",
                f"`url` must be the endpoint of the batch, {rules.endpoint!r}.",
                "url",
            )
        self._check_body(row)

    def _check_id(self, custom_id: object, number: int) -> None:
        if custom_id is None:
            raise _LineError(
                "missing_required_parameter", "`custom_id` is missing. Give each line one.", "custom_id"
            )
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID_CHARS:
            raise _LineError(
                "invalid_custom_id",
                f"`custom_id` must be a string of 1 to {MAX_CUSTOM_ID_CHARS} characters.",
                "custom_id",
            )
        key = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self._seen.setdefault(key, number)
        if first != number:
            raise _LineError(
                "duplicate_custom_id",
                f"The `custom_id` of this line is that of line {first}. Each must be unique in its file.",
                "custom_id",
            )

    def _check_body(self, row: InputRow) -> None:
        body = bytes(row.body)
        if not body.lstrip().startswith(b"{"):
            raise _LineError("missing_required_parameter", "`body` must be a JSON object.", "body")
        asked = read_asked(body)
        if not isinstance(asked.model, str) or not asked.model:
            raise _LineError("missing_required_parameter", "`body.model` must name a model.", "body.model")
        if asked.stream:
            raise _LineError(
                "invalid_value", "`body.stream` cannot be true here. Leave it out.", "body.stream"
            )
        if self.model and asked.model != self.model:
            raise _LineError(
                "mismatched_model",
                f"`body.model` must be that of the lines before, {self.model!r}: one file, one model.",
                "body.model",
            )
        if not self.model:
            self._check_model(asked.model)
        self.model = asked.model

    def _check_model(self, model: str) -> None:
        try:
            self._rules.allow(model)
        except RouterError as error:
            shape = shape_of(error)
            raise _LineError(shape.code, shape.message or str(error), "body.model") from error


def _parsed(line: bytes) -> InputRow:
    try:
        return read_row(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _LineError("invalid_json_line", "This line is not parseable as a JSON object.") from error
