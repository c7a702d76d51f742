"""Written: files that commands write where an option says, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from secrets import token_hex

from enginehouse.errors import CommandError


def write_text(path: Path, text: str, option: str) -> None:
    """In place of what is there; folders are made. Raises CommandError naming the option."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a terminal
        else:
            _replace(path.resolve(), text)
    except OSError as error:
        raise CommandError(
            f"{option} {path}: {error.strerror}.", "Name a file that can be written."
        ) from error


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        draft.write_text(text, encoding="utf-8")
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
