"""Processes as the kernel knows them."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether it is there and has not ended: a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False
