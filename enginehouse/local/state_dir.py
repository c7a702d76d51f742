"""StateDir: the folder that one local stack keeps between runs, and the lock that makes it the only one.

Everything secret in it is readable by its owner alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enginehouse.errors import BusyError
from telemetry.whole_file import write_whole
from tenancy.keys import new_key

STATE_DIR_ENV = "ENGINEHOUSE_STATE_DIR"
REPLICAS = "replicas"
"""Folder in a state directory in which pools of processes keep what runs."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The two API keys of a local stack, and the password of its Redis."""

    api_key: str
    admin_key: str
    redis_password: str

    @classmethod
    def generate(cls) -> Keys:
        """New random secrets."""
        return cls(new_key()[0], new_key()[0], redis_password=secrets.token_urlsafe(24))


def default_state_dir() -> Path:
    """`ENGINEHOUSE_STATE_DIR`, or `enginehouse` in the user's XDG state folder."""
    if chosen := os.environ.get(STATE_DIR_ENV):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "enginehouse"


class StateDir:
    """Paths of one local stack; `create` makes the folders."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.processes = self.root / "processes.json"
        self.ready = self.root / "ready.json"
        self.logs = self.root / "logs"
        self.redis = self.root / "redis"
        self.servers = self.root / "servers"
        self.manifest = self.root / "manifests" / "stack.yaml"
        self._applied = self.root / "applied.json"
        self.traces = self.root / "traces.jsonl"
        self.snapshots = self.root / "snapshots"
        self.batch_jobs = self.root / "batch-jobs"
        self.replicas = self.root / REPLICAS
        self._keys = self.root / "keys.json"
        self._lock = self.root / "lock"

    def create(self) -> None:
        """Make the folder and its subfolders, closed to other users."""
        for folder in (self.root, self.logs, self.redis, self.servers, self.manifest.parent, self.snapshots):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def log(self, process: str) -> Path:
        """Where the output of `process` goes."""
        return self.logs / f"{process}.log"

    def keys(self) -> Keys:
        """The stack's keys; generated when first asked for, the same ever after."""
        if self._keys.exists():
            return Keys(**json.loads(self._keys.read_text()))
        keys = Keys.generate()
        write_private(self._keys, asdict(keys))
        return keys

    def applied(self) -> set[tuple[str, str]]:
        """(kind, name) of what the last run put into the registry."""
        if not self._applied.exists():
            return set()
        return {(kind, name) for kind, name in json.loads(self._applied.read_text())}

    def remember_applied(self, names: set[tuple[str, str]]) -> None:
        """Keep what this run puts into the registry."""
        write_private(self._applied, sorted(names))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        The kernel drops the lock with the process, however it ends. Raises BusyError naming the holder.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"another `enginehouse up`{_holder(descriptor)} uses the state directory {self.root}",
                    "stop it with Ctrl-C, or give this one its own: --state-dir PATH",
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _holder(descriptor: int) -> str:
    pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return f" (process {pid})" if pid.isdigit() else ""


def write_private(path: Path, value: Any) -> None:
    """Write `value` as JSON, readable by the owner alone; readers see the old file or the whole new one."""
    write_whole(path, json.dumps(value, indent=2) + "\n", mode=0o600, synced=True)
