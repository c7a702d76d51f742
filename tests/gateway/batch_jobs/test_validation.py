"""A file is read once; each mistake is told with its line, code and field."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from gateway.batch_jobs.validation import MAX_ERRORS, Rules, Validated, unpack_entry, validate
from router.errors import UnknownModelError
from tests.gateway.batch_jobs.conftest import row


def allow(model: str) -> None:
    if model != "tally":
        raise UnknownModelError(model)


def read(*rows: Any, max_rows: int = 1000, max_line_bytes: int = 1000) -> Validated:
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows]
    rules = Rules("/v1/chat/completions", max_rows, max_line_bytes, allow)
    return validate(io.BytesIO(b"\n".join(lines)), rules)


def body(**changes: Any) -> dict[str, Any]:
    return {**row(0)["body"], **changes}


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (b"[" * 900, "invalid_json_line", None),
        ({"method": "POST"}, "missing_required_parameter", "custom_id"),
        (row(0, custom_id=7), "invalid_custom_id", "custom_id"),
        (row(0, custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (row(0, method="GET"), "invalid_method", "method"),
        (row(0, url="/v1/completions"), "invalid_url", "url"),
        (row(0, url=None), "invalid_url", "url"),
        (row(0, body=[]), "missing_required_parameter", "body"),
        (row(0, body=None), "missing_required_parameter", "body"),
        (row(0, body={"messages": []}), "missing_required_parameter", "body.model"),
        (row(0, body=body(stream=True)), "invalid_value", "body.stream"),
        (row(0, body=body(model="else")), "model_not_found", "body.model"),
        (row(0, body=body(pad="x" * 2000)), "line_too_long", None),
    ],
)
def test_a_wrong_line_is_told(line: Any, code: str, param: str | None) -> None:
    found = read(b"", line).errors
    assert [(e.line, e.code, e.param) for e in found] == [(2, code, param)]
    assert found[0].message.endswith(".")


def test_lines_are_compared_with_each_other() -> None:
    found = read(row(0), row(0), row(1, body=body(model="other"))).errors
    assert [(e.line, e.code) for e in found] == [(2, "duplicate_custom_id"), (3, "mismatched_model")]
    assert "line 1" in found[0].message


def test_reading_stops_where_there_is_too_much() -> None:
    assert [e.code for e in read(*(row(n) for n in range(4)), max_rows=2).errors] == ["too_many_rows"]
    assert len(read(*([b"{"] * 1000)).errors) == MAX_ERRORS


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_is_refused(content: bytes) -> None:
    assert [e.code for e in read(content).errors] == ["empty_file"]


def test_rows_are_found_again_by_their_places() -> None:
    lines = [b"", json.dumps(row(0)).encode() + b"\r", b"  ", json.dumps(row(1)).encode()]
    found = read(*lines)
    assert (found.errors, found.model) == ((), "tally")
    packed, content = found.rows.pack(), b"\n".join(lines)
    places = [unpack_entry(packed[at : at + 16]) for at in (0, 16)]
    assert [json.loads(content[begin:end]) for begin, end in places] == [row(0), row(1)]
