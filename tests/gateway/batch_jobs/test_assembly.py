"""Results become files in the order of the input, the same bytes whoever puts them together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.batch_jobs.assembly import INDEX, Assembled, assemble
from gateway.batch_jobs.contents import Contents, StorageFullError
from gateway.batch_jobs.lines import Result, answered_line, pack, places
from gateway.batch_jobs.validation import Rules, validate
from tests.gateway.batch_jobs.conftest import row

JOB = "batch_1"
ROWS = 6


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    contents = Contents(tmp_path / "store", 0)
    contents.create()
    with contents.draft() as draft:
        draft.write("\n".join(json.dumps(row(number)) for number in range(ROWS)).encode())
        contents.keep_file(draft, "file-in")
    with contents.open_file("file-in") as file:
        found = validate(file, Rules("/v1/chat/completions", ROWS, 1000, lambda _: None))
    contents.keep_part(JOB, INDEX, found.rows.pack())
    return contents


def keep(contents: Contents, segment: str, *results: tuple[int, bool]) -> None:
    made = [Result(n, ok, answered_line(JOB, n, f"r{n}", 200, "q", b'{"a":1}')) for n, ok in results]
    contents.keep_part(JOB, segment, pack(made))


def put_together(contents: Contents, *segments: str, stop: str = "") -> Assembled:
    job: Any = SimpleNamespace(id=JOB, total=ROWS, stop=stop, input_file="file-in")
    return assemble(contents, job, list(segments))


def ids(contents: Contents, file_id: str) -> list[str]:
    return [json.loads(line)["custom_id"] for line in contents.path(file_id).read_bytes().splitlines()]


def test_rows_come_in_order_whatever_order_they_were_recorded_in(contents: Contents) -> None:
    keep(contents, "b", (5, True), (1, False))
    keep(contents, "a", (4, True), (0, True), (3, False), (2, True))
    made = put_together(contents, "a", "b")
    assert ids(contents, made.output_id) == ["r0", "r2", "r4", "r5"]
    assert ids(contents, made.error_id) == ["r1", "r3"]
    before = contents.path(made.output_id).read_bytes()
    assert put_together(contents, "b", "a") == made
    assert contents.path(made.output_id).read_bytes() == before


def test_segments_that_were_never_recorded_do_not_count(contents: Contents) -> None:
    keep(contents, "counts", (0, True))
    keep(contents, "late", (0, False), (1, True))
    made = put_together(contents, "counts", stop="expired")
    assert ids(contents, made.output_id) == ["r0"]
    errors = [json.loads(line) for line in contents.path(made.error_id).read_bytes().splitlines()]
    assert [error["custom_id"] for error in errors] == ["r1", "r2", "r3", "r4", "r5"]
    assert {error["error"]["code"] for error in errors} == {"batch_expired"}


def test_a_row_without_a_result_or_with_two_ends_the_assembly(contents: Contents) -> None:
    keep(contents, "a", *((number, True) for number in range(ROWS - 1)))
    with pytest.raises(ValueError, match="no result"):
        put_together(contents, "a")
    keep(contents, "b", (0, True))
    with pytest.raises(ValueError, match="twice"):
        put_together(contents, "a", "b", stop="cancelled")
    assert [path.name for path in contents.path("x").parent.iterdir()] == ["file-in"]


def test_a_segment_cut_short_is_noticed() -> None:
    whole = pack([Result(0, True, b"{}"), Result(1, False, b"[\n]")])
    assert [(p.row, p.ok, whole[p.begin : p.end]) for p in places(whole)] == [
        (0, True, b"{}"),
        (1, False, b"[\n]"),
    ]
    with pytest.raises(ValueError, match="short"):
        places(whole[:-1])


def test_what_nobody_needs_any_more_goes(contents: Contents) -> None:
    draft = contents.path("x").parent.parent / "drafts" / "left"
    draft.write_bytes(b"half")
    os.utime(draft, (1, 1))
    os.utime(contents.path("file-in"), (1, 1))
    os.utime(draft.parent.parent / "jobs" / JOB, (1, 1))
    assert contents.old_jobs(60) == [JOB]
    contents.remove_job(JOB)
    contents.drop_old(60, 60)
    assert not [path for path in draft.parent.parent.rglob("*") if path.is_file()]


def test_a_full_store_says_so(tmp_path: Path) -> None:
    contents = Contents(tmp_path, 2**62)
    contents.create()
    with pytest.raises(StorageFullError):
        contents.check_room()
