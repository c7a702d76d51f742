"""Lines: a row of the input, and a row of the output, as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from gateway.operations import GeneratingOperation
from gateway.operations.chat import ChatCompletion
from gateway.operations.completion import TextCompletion
from gateway.operations.responses import Responses

_OPERATIONS: tuple[GeneratingOperation, ...] = (ChatCompletion(), TextCompletion(), Responses())
ENDPOINTS: Mapping[str, GeneratingOperation] = {operation.path: operation for operation in _OPERATIONS}
"""What rows may ask for, by path."""


class InputRow(msgspec.Struct):
    """One line of an input file; a field is None where the line lacks it."""

    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Asked(msgspec.Struct):
    """What a job has to know of a row's body before it runs."""

    model: Any = None
    stream: Any = None


read_row = msgspec.json.Decoder(InputRow).decode
read_asked = msgspec.json.Decoder(_Asked).decode


class Result(NamedTuple):
    """What became of one row."""

    row: int
    ok: bool
    """It goes to the output file; otherwise to the error file."""
    line: bytes
    """Without a newline."""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


def row_id(job_id: str, row: int) -> str:
    """The `batch_req_…` of a row; the same whoever runs it."""
    return f"batch_req_{blake2b(f'{job_id}:{row}'.encode(), digest_size=12).hexdigest()}"


def answered_line(job_id: str, row: int, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """The line of a row that was answered, with whatever status."""
    response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(body)}
    line = {"id": row_id(job_id, row), "custom_id": custom_id, "response": response, "error": None}
    return msgspec.json.encode(line)


def unrun_line(job_id: str, row: int, custom_id: str, code: str, message: str) -> bytes:
    """The line of a row that was never run."""
    error = {"code": code, "message": message}
    line = {"id": row_id(job_id, row), "custom_id": custom_id, "response": None, "error": error}
    return msgspec.json.encode(line)


_HEAD = b"%d %d %d\n"


def pack(results: list[Result]) -> bytes:
    """A segment: for each result a head of row, 1 or 0 for ok, and length, then its line."""
    parts = []
    for result in results:
        parts += [_HEAD % (result.row, result.ok, len(result.line)), result.line, b"\n"]
    return b"".join(parts)


class Place(NamedTuple):
    """Where the line of a row is within its segment."""

    row: int
    ok: bool
    begin: int
    end: int


def places(segment: bytes) -> list[Place]:
    """The lines of a segment. Raises ValueError where it is not whole."""
    found = []
    at = 0
    while at < len(segment):
        newline = segment.index(b"\n", at)
        row, ok, length = map(int, segment[at:newline].split())
        begin, end = newline + 1, newline + 1 + length
        if segment[end : end + 1] != b"\n":
            raise ValueError(f"row {row} of a segment is cut short")
        found.append(Place(row, bool(ok), begin, end))
        at = end + 1
    return found
