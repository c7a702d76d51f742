"""StepCache: what steps have left, each under its key, whole or not there at all.

    <root>/<key[:2]>/<key>/output/       what the step left
                           step.json     its record: files and sizes, how long it took
                           step.log      what it wrote
                           repro.sh      runs it again by hand
    <root>/work/<key>-<random>/          the same, of a step that runs; renamed when it is whole
    <root>/failed/<step>-<key[:12]>/     log and script of a step that failed, the last time
    <root>/locks/<key>                   held alone by who makes the entry, shared by who uses it
    <root>/history.json                  how long steps took (`history`)

Many builders may share one cache, also over NFS: they agree by locks, which end with their holders.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

from engine_builder.build.locks import FileLock
from engine_builder.errors import StoreError

OUTPUT, RECORD, LOG, SCRIPT = "output", "step.json", "step.log", "repro.sh"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a step has left."""

    key: str
    folder: Path
    step: str
    files: Mapping[str, int]
    """Sizes by path below the output."""
    seconds: float

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    @property
    def bytes(self) -> int:
        """Of its output."""
        return sum(self.files.values())

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The entry in a folder; None unless every file of its record is there at its size."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            files: dict[str, int] = record["files"]
            found = cls(folder.name, folder, record["step"], files, float(record["seconds"]))
            for path, size in files.items():
                if (found.output / path).lstat().st_size != size:
                    return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found


@dataclass(slots=True)
class Work:
    """The folder of a step that runs; nobody else touches it."""

    key: str
    folder: Path
    entry: Path
    published: bool = False

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    def publish(self, step: str, seconds: float, more: Mapping[str, Any]) -> None:
        """Make it the entry of its key, whole: by one rename, all of it on disk before."""
        files = {str(path.relative_to(self.output)): _synced(path) for path in _files(self.output)}
        record = {"step": step, "key": self.key, "seconds": round(seconds, 3), "files": files, **more}
        (self.folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
        _synced(self.folder / RECORD)
        self.entry.parent.mkdir(parents=True, exist_ok=True)
        if self.entry.exists():  # what was there is not whole, or it would have been used
            _remove(self.entry, self.folder.parent)
        self.folder.rename(self.entry)
        _synced(self.entry.parent)
        self.published = True


@dataclass(slots=True)
class StepCache:
    """A cache as one build uses it: what it has used stays there until `close`. Use as `with`."""

    root: Path
    _held: dict[str, FileLock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.root.expanduser().absolute()
        try:
            (self.root / "work").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the cache {self.root} cannot be made: {error.strerror}", "name another by --cache"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the collector have what was used."""
        while self._held:
            self._held.popitem()[1].release()

    def folder(self, key: str) -> Path:
        """Where the entry of a key is, once it is."""
        return self.root / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether there is a whole entry now; nothing keeps it there."""
        return Entry.read(self.folder(key)) is not None

    def use(self, key: str) -> Entry | None:
        """The entry of a key, kept until `close`; None where there is none that is whole."""
        lock = self._held.get(key) or FileLock.take(self._lock(key), shared=True)
        if lock is None:
            return None
        entry = Entry.read(self.folder(key))
        if entry is None:
            self._held.pop(key, None)
            lock.release()
            return None
        self._held[key] = lock
        os.utime(entry.folder / RECORD)  # by this the least recently used goes first
        return entry

    @contextmanager
    def make(self, key: str) -> Iterator[Work | None]:
        """A folder to make the entry of `key` in; None while another builder does.

        What is not published by the end of the block is removed; so is what killed builders have left.
        """
        lock = FileLock.take(self._lock(key))
        if lock is None:
            yield None
            return
        work = Work(key, self.root / "work" / f"{key}-{token_hex(4)}", self.folder(key))
        try:
            self._remove_leftovers(key)
            work.output.mkdir(parents=True)
            yield work
        finally:
            if not work.published:
                shutil.rmtree(work.folder, ignore_errors=True)
            lock.release()

    def keep_failure(self, work: Work, step: str) -> Path:
        """Keep log and script of a step that failed, in place of those of the time before."""
        folder = self.root / "failed" / f"{step}-{work.key[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (LOG, SCRIPT):
            if (work.folder / name).exists():
                (work.folder / name).replace(folder / name)
        return folder

    def entries(self) -> list[Entry]:
        """All whole entries."""
        found = (Entry.read(folder) for folder in self.root.glob("[0-9a-f][0-9a-f]/*"))
        return [entry for entry in found if entry is not None]

    def _lock(self, key: str) -> Path:
        return self.root / "locks" / key

    def _remove_leftovers(self, key: str) -> None:
        for left in (self.root / "work").glob(f"{key}-*"):
            shutil.rmtree(left, ignore_errors=True)

    # -- what is kept too long ----------------------------------------------------------------------------

    def collect(self, max_bytes: int) -> Collected:
        """Remove the least recently used entries until the rest is within `max_bytes`; never one in use.

        Also removes what killed builders have left, entries that are not whole, and old failures.
        """
        freed = self._remove_broken()
        kept = [(_used_s(entry), entry) for entry in self.entries()]
        kept.sort(key=lambda one: one[0])
        total, in_use, removed = sum(entry.bytes for _, entry in kept), 0, 0
        for _, entry in kept:
            if total <= max_bytes:
                break
            if self._remove_entry(entry.folder):
                total -= entry.bytes
                freed += entry.bytes
                removed += 1
            else:
                in_use += 1
        return Collected(removed, freed, total, in_use)

    def _remove_broken(self) -> int:
        """Of no use to anybody; returns the bytes of it."""
        freed = 0
        for left in (self.root / "work").iterdir():
            lock = FileLock.take(self._lock(left.name.partition("-")[0]))
            if lock is not None:
                freed += sum(path.lstat().st_size for path in _files(left))
                shutil.rmtree(left, ignore_errors=True)
                lock.release()
        for folder in self.root.glob("[0-9a-f][0-9a-f]/*"):
            if Entry.read(folder) is None:
                self._remove_entry(folder)
        failures = sorted((self.root / "failed").glob("*"), key=lambda path: path.stat().st_mtime)
        for old in failures[:-_FAILURES_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return freed

    def _remove_entry(self, folder: Path) -> bool:
        lock = FileLock.take(self._lock(folder.name))
        if lock is None:
            return False
        _remove(folder, self.root / "work")
        lock.release(remove=True)
        return True


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection came to."""

    removed: int
    freed_bytes: int
    kept_bytes: int
    in_use: int
    """Entries that would have gone, but a build uses them."""


_FAILURES_KEPT = 50


def _remove(folder: Path, beside: Path) -> None:
    """At once gone from where it was, whoever dies meanwhile."""
    doomed = beside / f"{folder.name}-{token_hex(4)}"
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())


def _synced(path: Path) -> int:
    """Its size, once it is on disk."""
    if not path.is_symlink():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return path.lstat().st_size


def _used_s(entry: Entry) -> float:
    try:
        return (entry.folder / RECORD).stat().st_mtime
    except FileNotFoundError:
        return time.time()  # another collector was faster
