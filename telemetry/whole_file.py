"""Whole file: a file that takes its name only once all of it is written; readers see the old one or the new.

What is written is a draft beside it. A writer that fails leaves what was there and no draft; one that is
killed may leave the draft, `.NAME.` and eight digits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO


@contextmanager
def whole_file(path: Path, *, mode: int | None = None, synced: bool = False) -> Iterator[IO[bytes]]:
    """The draft to write to; folders are made. Raises OSError.

    `mode`: its permissions; None: those of the file that it replaces, else of any new file. With `synced` it
    survives a power cut from when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o666 if mode is None else 0o600), "wb") as file:
            if mode is not None:
                draft.chmod(mode)
            elif path.exists():
                shutil.copymode(path, draft)
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if synced:
        sync_folder(path.parent)


def write_whole(path: Path, content: str | bytes, *, mode: int | None = None, synced: bool = False) -> None:
    """Put `content`, text as UTF-8, in place of what is there; as `whole_file`. Raises OSError."""
    with whole_file(path, mode=mode, synced=synced) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Let the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
