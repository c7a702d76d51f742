"""Up: one `enginehouse up` of a campaign's own, its processes found below its pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.build import BenchError
from bench.processes import ROOT

READY_WITHIN_S = 180.0
STOP_S = 60.0


class Up:
    """A stack that runs."""

    def __init__(self, pid: int, ready: dict[str, Any]) -> None:
        """`ready`: what `--ready-file` says."""
        self._parent = psutil.Process(pid)
        self.ready = ready

    @property
    def base_url(self) -> str:
        return str(self.ready["base_url"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.ready['api_key']}"}

    def find(self, *words: str) -> list[psutil.Process]:
        """Processes of this stack whose command line holds all `words`."""
        return below(self._parent, *words)

    def workers(self) -> list[psutil.Process]:
        """The gateway's workers, which their supervisor forks."""
        supervisors = [child for child in self.find("enginehouse gateway") if child.children()]
        return supervisors[0].children() if supervisors else []

    def triton(self, number: int) -> list[psutil.Process]:
        """The Triton of the ready file's `number`; none while it starts anew."""
        port = self.ready["triton"][number]["http"].rpartition(":")[2]
        return self.find("tritonserver", f"--http-port={port}")


def below(parent: psutil.Process, *words: str) -> list[psutil.Process]:
    """Descendants of `parent` whose command line holds all `words`."""
    found = []
    for child in parent.children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.NoSuchProcess:
            continue
        if all(word in line for word in words):
            found.append(child)
    return found


@contextmanager
def up(folder: Path, *options: str, **environment: str) -> Iterator[Up]:
    """Starts one, yields it once it is ready, and stops it as Ctrl-C does.

    Raises BenchError where it does not start.
    """
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "enginehouse", "up", "--port", "0", "--ready-file", str(ready)]
    command += ["--state-dir", str(folder / "state"), *options]
    log = folder / "up.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=sink, stderr=sink
        )
    try:
        wait_until("the stack is up", lambda: ready.exists() or process.poll() is not None, READY_WITHIN_S)
        if not ready.exists():
            raise BenchError(f"the stack did not start: {log.read_text(errors='replace')[-800:]}")
        yield Up(process.pid, json.loads(ready.read_text()))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)


def wait_until(what: str, true: Callable[[], object], within_s: float) -> float:
    """Poll; seconds until `true()`. Raises BenchError that names `what` when it takes too long."""
    began_s = time.monotonic()
    while not true():
        if time.monotonic() - began_s > within_s:
            raise BenchError(f"waited {within_s:g} s until {what}")
        time.sleep(0.05)
    return time.monotonic() - began_s
