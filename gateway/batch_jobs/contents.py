"""Contents: the bytes of files, row indexes and results, in a folder that all gateways share.

    files/<file id>              whole files, never changed
    jobs/<job id>/rows           where each row of the input begins
    jobs/<job id>/<segment>      results as they came, never changed; the ones that count are named in Redis
    drafts/<random>              what is being written

Whatever has its final name is whole and on the disk: it was written as a draft, synced, and renamed. Every
method blocks; call them in a thread. Other modules know nothing of paths: this is the port to the store.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO

from telemetry.whole_file import sync_folder


class StorageFullError(Exception):
    """The store has less free space than it must keep."""


class Draft:
    """A file that is being written; `keep` gives it its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb", buffering=1 << 20)
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.bytes += len(data)

    def keep(self, target: Path) -> None:
        """Sync, and take the final name; a file of that name is replaced whole."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(target)
        sync_folder(target.parent)

    def drop(self) -> None:
        """Leave nothing behind; harmless once it was kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Contents:
    """The store at `root`."""

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        self._root = root
        self._files = root / "files"
        self._jobs = root / "jobs"
        self._drafts = root / "drafts"
        self._min_free_bytes = min_free_bytes

    def create(self) -> None:
        """Make the folders, closed to other users."""
        for folder in (self._root, self._files, self._jobs, self._drafts):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def check_room(self) -> None:
        """Raise StorageFullError while too little is free."""
        if not self.has_room():
            raise StorageFullError("The file store is full. Delete files, or ask the operator for more room.")

    def has_room(self) -> bool:
        return shutil.disk_usage(self._root).free >= self._min_free_bytes

    # -- files --------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A new draft; what was not kept at the end of the scope is gone."""
        draft = Draft(self._drafts / token_hex(12))
        try:
            yield draft
        finally:
            draft.drop()

    def path(self, file_id: str) -> Path:
        """Where a file's bytes are, for the server's own sendfile."""
        return self._files / file_id

    def keep_file(self, draft: Draft, file_id: str) -> None:
        draft.keep(self.path(file_id))

    def open_file(self, file_id: str) -> IO[bytes]:
        return self.path(file_id).open("rb")

    def remove_file(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def read_range(self, file_id: str, begin: int, end: int) -> bytes:
        """Bytes of a file from `begin` up to `end`."""
        with self.open_file(file_id) as file:
            return os.pread(file.fileno(), end - begin, begin)

    # -- what a job leaves on its way ---------------------------------------------------------------------

    def keep_part(self, job_id: str, name: str, data: bytes) -> None:
        """Store an index or a segment."""
        folder = self._jobs / job_id
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._jobs)
        with self.draft() as draft:
            draft.write(data)
            draft.keep(folder / name)

    def read_part(self, job_id: str, name: str) -> bytes:
        return (self._jobs / job_id / name).read_bytes()

    def open_part(self, job_id: str, name: str) -> IO[bytes]:
        return (self._jobs / job_id / name).open("rb")

    def read_part_range(self, job_id: str, name: str, begin: int, end: int) -> bytes:
        with self.open_part(job_id, name) as file:
            return os.pread(file.fileno(), end - begin, begin)

    def remove_job(self, job_id: str) -> None:
        """Remove what the job left on its way; its output is a file like others."""
        shutil.rmtree(self._jobs / job_id, ignore_errors=True)

    # -- what nobody needs any more -----------------------------------------------------------------------

    def old_jobs(self, older_than_s: float) -> list[str]:
        """Jobs with something left that was last written so long ago."""
        return [path.name for path in _older(self._jobs, older_than_s)]

    def drop_old(self, drafts_s: float, files_s: float) -> None:
        """Remove drafts whose writer died, and files beyond every retention, whoever lost track of them."""
        for path in (*_older(self._drafts, drafts_s), *_older(self._files, files_s)):
            path.unlink(missing_ok=True)


def _older(folder: Path, than_s: float) -> list[Path]:
    before = time.time() - than_s
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                found.append(path)
    return found
