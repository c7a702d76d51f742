"""A small OpenAI-HTTP server for pools of processes: `tiny_server.py PORT ACTS`.

It answers `/v1/models`, and every request with one token. It writes what is done to it into ACTS, a JSON line
each: its start, with the token of the leader by which it was started, and its end, with the process that
asked for it. Times are those of `CLOCK_BOOTTIME`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """One model, `m`."""

    def do_GET(self) -> None:
        """Any path will do."""
        self._answer({"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        """One token, whatever is asked."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "."}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        told = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
        self._answer({**told, "choices": [choice], "usage": usage})

    def _answer(self, told: dict[str, object]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def wrote(acts: Path, what: dict[str, object]) -> None:
    """One line, whole."""
    line = json.dumps({"replica": os.environ["EH_REPLICA"].rpartition("/")[2], "pid": os.getpid(), **what})
    with acts.open("a") as file:
        file.write(line + "\n")


def ends_when_asked(acts: Path) -> None:
    """Waits for SIGTERM and tells who sent it."""
    told = signal.sigwaitinfo({signal.SIGTERM})
    at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    wrote(acts, {"act": "stop", "at_s": at_s, "by": told.si_pid})
    os._exit(0)


def main() -> None:
    """Serve until asked to end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    acts = Path(sys.argv[2])
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    began_s = ticks / os.sysconf("SC_CLK_TCK")
    wrote(acts, {"act": "start", "at_s": began_s, "token": int(os.environ["EH_TOKEN"])})
    threading.Thread(target=ends_when_asked, args=[acts], daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
