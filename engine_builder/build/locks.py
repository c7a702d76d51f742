"""Locks between processes, by files: the kernel takes them back from a process that ends in any way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self


class FileLock:
    """A lock that is held; `release` it once."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> Self | None:
        """The lock of a file, which is made; None while others hold it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            if _is_at(fd, path):
                return cls(fd, path)
            os.close(fd)  # its last holder has removed it meanwhile

    def release(self, *, remove: bool = False) -> None:
        """Let others have it; `remove` the file, for a holder that shares it with nobody."""
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
