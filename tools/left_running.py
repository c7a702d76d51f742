"""Say which processes of a test run are still alive, and fail if there are any.

Usage: python tools/left_running.py NAME=VALUE. Every process of a run inherits that variable, so a process
is found by its environment, whoever its parent has become. The caller itself does not count.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

PATIENCE_S = 5.0


def marked(mark: bytes) -> dict[int, str]:
    """Pid -> command line of every other process whose environment holds `mark`."""
    ancestors = _ancestors(os.getpid())
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) not in ancestors:
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid:
        found.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return found


def main() -> int:
    """0 when nothing is left within the patience."""
    mark = sys.argv[1].encode()
    deadline = time.monotonic() + PATIENCE_S
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, command in left.items():
        sys.stderr.write(f"left running: {pid} {command}\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
