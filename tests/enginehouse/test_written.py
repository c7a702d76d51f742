"""Files that commands write are there whole, or as they were."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enginehouse.errors import CommandError
from enginehouse.written import write_text


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Files of this process cannot become longer, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [None, "an earlier plan"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "plan.yaml"
    if before is not None:
        path.write_text(before)
    with no_room_beyond(20), pytest.raises(CommandError, match=r"--out .*File too large"):
        write_text(path, "x" * 10_000, "--out")
    assert [one.read_text() for one in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    for text in ("one", "two"):
        write_text(link, text, "--out")
    assert (link.is_symlink(), (tmp_path / "file").read_text()) == (True, "two")
    reading, writing = os.pipe()
    write_text(Path(f"/dev/fd/{writing}"), "three", "--out")
    assert os.read(reading, 100) == b"three"
    os.close(reading)
    os.close(writing)
