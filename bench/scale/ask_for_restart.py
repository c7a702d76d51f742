"""`python -m bench.scale.ask_for_restart FOLDER`: asks the campaign there for a restart, and waits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

WITHIN_S = 120.0


def main() -> int:
    """0 once it is done; 1: it was not done in time."""
    wanted, done = Path(sys.argv[1]) / "restart.wanted", Path(sys.argv[1]) / "restart.done"
    done.unlink(missing_ok=True)
    wanted.touch()
    until_s = time.monotonic() + WITHIN_S
    while time.monotonic() < until_s:
        if done.exists():
            return 0
        time.sleep(0.1)
    sys.stderr.write(f"nobody restarted the server within {WITHIN_S:g} s\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
