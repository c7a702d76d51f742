"""`python -m enginehouse.containers.probe [URL|FILE]`: is a container's process well? Exit status 0 or 1.

A URL has to answer 200. A file has to be young: a process that lives rewrites it (`enginehouse.heartbeat`).
Standard library alone, since it runs every few seconds.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

DEFAULT = "http://127.0.0.1:8080/readyz"
TIMEOUT_S = 3.0
MAX_AGE_S = 15.0


def problem(subject: str, now_s: float) -> str | None:
    """What is wrong with `subject`, a URL or a file; None: nothing."""
    return _of_url(subject) if "://" in subject else _of_file(Path(subject), now_s)


def _of_url(url: str) -> str | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            return None if response.status == 200 else f"{url} answers {response.status}"
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace")
        return f"{url} answers {error.code}: {said}"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"


def _of_file(path: Path, now_s: float) -> str | None:
    try:
        age_s = now_s - path.stat().st_mtime
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None if age_s <= MAX_AGE_S else f"{path} was last written {age_s:.0f} s ago"


def main() -> int:
    """0 when all is well; else 1, and what is wrong on standard output."""
    found = problem(sys.argv[1] if len(sys.argv) > 1 else DEFAULT, time.time())
    if found is not None:
        sys.stdout.write(f"{found}\n")
    return 0 if found is None else 1


if __name__ == "__main__":
    sys.exit(main())
