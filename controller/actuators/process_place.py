"""ProcessPlace: what one replica of a pool of processes leaves on disk, by which any later leader finds it.

Three files in a folder, named after the replica. `.json`: what was to be started and on which ports,
written before that. `.pid`: written by the process itself before it becomes the server. `.lock`:
locked by whoever starts it and then, by inheritance, by the server for as long as it lives; so there is no
moment at which a process of ours runs and nobody can tell.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote, unquote

from telemetry.process_stat import ProcessStat, all_stats, boot_id, stat_in, stat_of
from telemetry.whole_file import write_whole

LOCK_FD = 9
"""Of the lock in the server."""
MARK = "EH_REPLICA"
"""Environment variable of the server and of all it starts: registry, pool and replica."""
TOKEN = "EH_TOKEN"  # noqa: S105 - a number
"""Environment variable of the server: the claim by which its leader started it."""
LAUNCH = 'read -r stat < /proc/$$/stat && printf "%s\\n" "$stat" > "$0" && exec "$@"'
"""For `sh -c`; `$0` is the `.pid` file. Process and start time stay what they are across `exec`."""


class BusyError(Exception):
    """Another controller is starting or stopping this replica."""


class Plan(NamedTuple):
    """What was to be started."""

    deployment: str
    token: int
    """Of the leader that started it: an older one may not start it any more."""
    boot: str
    http: int
    grpc: int | None
    metrics: int | None


class ProcessPlace:
    """Of one replica. Everything here blocks for a moment at most."""

    def __init__(self, folder: Path, registry: str, pool: str, replica: str) -> None:
        self.replica = replica
        self.mark = f"{registry}/{pool}/{replica}"
        base = folder / quote(replica, safe="")
        self._plan = base.with_name(base.name + ".json")
        self.pid_file = base.with_name(base.name + ".pid")
        self._lock = base.with_name(base.name + ".lock")
        self.log = base.with_name(base.name + ".log")

    @staticmethod
    def all_in(folder: Path) -> list[str]:
        """Replicas that have left something there."""
        return sorted(unquote(path.stem) for path in folder.glob("*.json"))

    @classmethod
    def everywhere(cls, folder: Path) -> list[Self]:
        """Of all pools of all registries that keep theirs in `folder`."""
        paths = sorted(folder.glob("*/*/*.json"))
        return [
            cls(path.parent, unquote(path.parts[-3]), unquote(path.parts[-2]), unquote(path.stem))
            for path in paths
        ]

    def plan(self) -> Plan | None:
        """What was to be started; None where nothing was."""
        try:
            return Plan(**json.loads(self._plan.read_text()))
        except FileNotFoundError:
            return None

    def write(self, plan: Plan) -> None:
        """Before anything is started."""
        self.pid_file.unlink(missing_ok=True)
        write_whole(self._plan, json.dumps(plan._asdict()), mode=0o600)

    def leader(self) -> ProcessStat | None:
        """The server's process; None where it does not run, or not yet."""
        recorded = self._recorded()
        return recorded if recorded is not None and stat_of(recorded.pid) == recorded else None

    def members(self) -> list[ProcessStat]:
        """What runs of the server's session, the server itself and all it started."""
        recorded = self._recorded()
        if recorded is None:
            return []
        session = [stat for stat in all_stats() if stat.session == recorded.pid]
        return session if recorded in session else [stat for stat in session if self._is_marked(stat.pid)]

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The lock's descriptor, for the server to inherit. Raises BusyError while anybody has it."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(self.replica) from error
            yield descriptor
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Nothing of it runs any more."""
        for path in (self._plan, self.pid_file, self._lock, self.log):
            path.unlink(missing_ok=True)

    def log_tail(self, characters: int = 500) -> str:
        """The last lines of what the server wrote."""
        try:
            text = self.log.read_bytes()[-characters:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return text.strip()

    def _recorded(self) -> ProcessStat | None:
        plan = self.plan()
        if plan is None or plan.boot != boot_id():
            return None
        try:
            return stat_in(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _is_marked(self, pid: int) -> bool:
        """Its server is gone, so that the session's number may be another's by now."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        return f"{MARK}={self.mark}".encode() in environment
