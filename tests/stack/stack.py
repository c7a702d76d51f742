"""Stack: `enginehouse up` as a test drives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from openai import AsyncOpenAI, OpenAI

from bench.up import below

START_TIMEOUT_S = 180.0
SCRIPT_FILE = "script.json"
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Stack:
    """A running stack and what its ready file says."""

    process: subprocess.Popen[bytes]
    directory: Path
    ready: dict[str, Any]

    @classmethod
    @contextmanager
    def start(cls, directory: Path, *options: str, **environment: str) -> Iterator[Stack]:
        """Start `enginehouse up` and wait until it is ready; it is stopped at the end in any case."""
        ready_file = directory / "ready.json"
        command = [sys.executable, "-m", "enginehouse", "up", "--port", "0"]
        command += ["--state-dir", str(directory / "state"), "--ready-file", str(ready_file), *options]
        with (directory / "up.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
        try:
            wait_until(
                lambda: ready_file.exists() or process.poll() is not None,
                START_TIMEOUT_S,
                "the stack is ready",
            )
            if not ready_file.exists():
                raise AssertionError(
                    f"up ended with {process.returncode}:\n{(directory / 'up.log').read_text()}"
                )
            yield cls(process, directory, json.loads(ready_file.read_text()))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)

    @property
    def base_url(self) -> str:
        return str(self.ready["base_url"])

    @property
    def origin(self) -> str:
        """Scheme, host and port, without `/v1`."""
        return self.base_url.removesuffix("/v1")

    @property
    def key(self) -> str:
        return str(self.ready["api_key"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def admin_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.ready['admin_key']}"}

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.base_url, api_key=self.key, max_retries=0, timeout=60)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.base_url, api_key=self.key, max_retries=0, timeout=120)

    def script(self, *answers: tuple[str, str]) -> None:
        """What engines say from now on to a prompt in which the first of a pair stands last."""
        told = {"answers": [{"when": when, "say": say} for when, say in answers]}
        draft = self.directory / f"{SCRIPT_FILE}.tmp"
        draft.write_text(json.dumps(told))
        draft.replace(self.directory / SCRIPT_FILE)

    def processes(self) -> list[tuple[psutil.Process, str]]:
        """This `up` and every process below it, each with its command line."""
        parent = psutil.Process(self.process.pid)
        return [(one, " ".join(one.cmdline())) for one in (parent, *parent.children(recursive=True))]

    def children(self, *words: str) -> list[psutil.Process]:
        """Processes of this stack whose command line holds all `words`."""
        return below(psutil.Process(self.process.pid), *words)

    def workers(self) -> list[psutil.Process]:
        """The gateway's workers, which it forks."""
        (gateway,) = (child for child in self.children("enginehouse gateway") if child.children())
        return gateway.children()

    def logs(self) -> str:
        """What all processes have logged so far."""
        return "".join(path.read_text(errors="replace") for path in self.directory.rglob("*.log"))

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie has ended, and waits for init to take note."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(true: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll until `true()`; AssertionError naming `what` when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s until {what}")
        time.sleep(0.05)


def events_of(body: bytes) -> list[Any]:
    """The JSON of every server-sent event but `[DONE]`."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.strip()]
    return [msgspec.json.decode(event) for event in events if event != b"[DONE]"]
