"""Written: files that commands write where an option says."""

from __future__ import annotations

from pathlib import Path

from enginehouse.errors import CommandError


def write_text(path: Path, text: str, option: str) -> None:
    """Raises CommandError naming the option."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"{option} {path}: {error.strerror}.", "Name a file that can be written."
        ) from error
