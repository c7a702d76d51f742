"""`python -m enginehouse.containers.probe [URL|FILE]`: is a container's process well? Exit status 0 or 1.

A URL has to answer 200. A file has to be young: a process that lives rewrites it (`enginehouse.heartbeat`).
It runs every few seconds in every container, so it imports next to nothing: a tenth of a second for an HTTP
client would be a tenth of a core for ten containers.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT = "http://127.0.0.1:8080/readyz"
TIMEOUT_S = 3.0
MAX_AGE_S = 15.0
OK = 200


def problem(subject: str, now_s: float) -> str | None:
    """What is wrong with `subject`, a URL or a file; None: nothing."""
    return _of_url(subject) if "://" in subject else _of_file(Path(subject), now_s)


def _of_url(url: str) -> str | None:
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path or "/"
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, parts.port or 80), TIMEOUT_S) as connection:
            connection.sendall(request.encode())
            answer = connection.makefile("rb").read(4096).decode(errors="replace")
    except OSError as error:
        return f"{url}: {error}"
    words = answer.split(maxsplit=2)
    if len(words) < 2 or not words[1].isdigit():
        return f"{url}: no answer in HTTP"
    said = answer.partition("\r\n\r\n")[2][:300]
    return None if int(words[1]) == OK else f"{url} answers {words[1]}: {said}"


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
