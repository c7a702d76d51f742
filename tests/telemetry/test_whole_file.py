"""A file is there whole, with its permissions, or as it was; a writer that fails leaves no draft."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import IO

import pytest

from telemetry.whole_file import whole_file, write_whole


@pytest.mark.parametrize("synced", [False, True])
def test_readers_see_the_old_or_the_new(tmp_path: Path, synced: bool) -> None:
    path = tmp_path / "made" / "file"
    write_whole(path, "old")
    with whole_file(path, synced=synced) as file:
        file.write(b"n")
        file.flush()
        assert path.read_text() == "old"
        file.write(b"ew")
    assert [(one.name, one.read_text()) for one in path.parent.iterdir()] == [("file", "new")]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_is_stopped_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(error), whole_file(path) as file:
        _stopped_in_the_middle(file, error)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def _stopped_in_the_middle(file: IO[bytes], error: type[BaseException]) -> None:
    file.write(b"half")
    raise error


def test_permissions_are_those_asked_for_else_those_there_were(tmp_path: Path) -> None:
    """A secret is at no moment readable by others."""
    path = tmp_path / "file"
    with whole_file(path, mode=0o440):
        drafts = [stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()]
    write_whole(path, "again")
    assert drafts == [0o440]
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
