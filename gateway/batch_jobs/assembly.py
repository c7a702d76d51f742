"""Assembly: the recorded results become the output and the error file, in the order of the input.

Deterministic: whoever assembles the same records, however often, writes the same bytes.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import IO, NamedTuple

from gateway.batch_jobs.contents import Contents, Draft
from gateway.batch_jobs.lines import Place, places, read_row, unrun_line
from gateway.batch_jobs.validation import INDEX_ENTRY_BYTES, unpack_entry
from tenancy.batch_jobs.entities import BatchJob

INDEX = "rows"
_UNRUN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
}
_BREATHE_EVERY = 64


class Assembled(NamedTuple):
    """The files of a job that is at its end; one without bytes was not kept."""

    output_id: str
    output_bytes: int
    error_id: str
    error_bytes: int


def assemble(contents: Contents, job: BatchJob, segments: list[str]) -> Assembled:
    """Write both files under names that depend on the job alone; blocks."""
    found = _where(contents, job, segments)
    output_id, error_id = _file_id(job.id, "output"), _file_id(job.id, "error")
    with contents.draft() as output, contents.draft() as errors:
        _write(contents, job, segments, found, output, errors)
        for draft, file_id in ((output, output_id), (errors, error_id)):
            if draft.bytes:
                contents.keep_file(draft, file_id)
    return Assembled(output_id, output.bytes, error_id, errors.bytes)


def _where(contents: Contents, job: BatchJob, segments: list[str]) -> list[tuple[int, Place] | None]:
    """For each row the number of its segment and its place in it; None where it was not run."""
    found: list[tuple[int, Place] | None] = [None] * job.total
    for number, name in enumerate(segments):
        time.sleep(0)
        for place in places(contents.read_part(job.id, name)):
            if found[place.row] is not None:
                raise ValueError(f"row {place.row} of {job.id} is recorded twice")
            found[place.row] = number, place
    return found


def _write(
    contents: Contents,
    job: BatchJob,
    segments: list[str],
    found: list[tuple[int, Place] | None],
    output: Draft,
    errors: Draft,
) -> None:
    code, message = _UNRUN.get(job.stop, ("", ""))
    opened = _Opened(contents, job.id, segments)
    try:
        for row, at in enumerate(found):
            if row % _BREATHE_EVERY == 0:
                time.sleep(0)
            if at is not None:
                number, place = at
                draft = output if place.ok else errors
                draft.write(opened.read(number, place) + b"\n")
            elif code:
                custom_id = str(read_row(read_input(contents, job, row)).custom_id)
                errors.write(unrun_line(job.id, row, custom_id, code, message) + b"\n")
            else:
                raise ValueError(f"row {row} of {job.id} has no result")
    finally:
        opened.close()


class _Opened:
    """The segment read last stays open: neighbours in the input are mostly neighbours there."""

    def __init__(self, contents: Contents, job_id: str, segments: list[str]) -> None:
        self._contents = contents
        self._job_id = job_id
        self._segments = segments
        self._number = -1
        self._file: IO[bytes] | None = None

    def read(self, number: int, place: Place) -> bytes:
        if self._file is None or number != self._number:
            self.close()
            self._file = self._contents.open_part(self._job_id, self._segments[number])
            self._number = number
        self._file.seek(place.begin)
        return self._file.read(place.end - place.begin)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_input(contents: Contents, job: BatchJob, row: int) -> bytes:
    """The line of one row of the input; blocks."""
    at = row * INDEX_ENTRY_BYTES
    entry = contents.read_part_range(job.id, INDEX, at, at + INDEX_ENTRY_BYTES)
    return contents.read_range(job.input_file, *unpack_entry(entry))


def _file_id(job_id: str, which: str) -> str:
    return f"file-{blake2b(f'{job_id}:{which}'.encode(), digest_size=12).hexdigest()}"
