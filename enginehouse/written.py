"""Written: files that commands write where an option says, whole or not at all, and read again."""

from __future__ import annotations

import os
from pathlib import Path

from enginehouse.errors import CommandError
from telemetry.whole_file import write_whole

WRONG_SHAPE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading JSON raises that another program has written, or none."""


def why_wrong(error: Exception) -> str:
    """What one of WRONG_SHAPE says, in a line."""
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case KeyError():
            return f"it has no {error}"
        case _:
            return str(error)


def write_text(path: Path, text: str, option: str) -> None:
    """In place of what is there; folders are made. Raises CommandError naming the option."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a terminal
        else:
            write_whole(path.resolve(), text, synced=True)
    except OSError as error:
        raise CommandError(
            f"{option} {path}: {error.strerror}.", "Name a file that can be written."
        ) from error


def check_writable(*asked: tuple[Path | None, str]) -> None:
    """Before what takes long: files, None where none is asked for, and their options. Raises CommandError."""
    for path, option in asked:
        if path is None:
            continue
        folder = next(one for one in path.absolute().parents if one.exists())
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            what = "is a folder" if path.is_dir() else f"{folder} cannot be written to"
            raise CommandError(f"{option} {path}: {what}.", "Name a file that can be written.")
