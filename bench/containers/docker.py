"""Docker and Compose as commands, and what is to be said where they are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 120.0
POLL_S = 0.25
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"


class DockerMissingError(Exception):
    """What is missing, and how to get it."""


class StepError(Exception):
    """A step went wrong; `str` says how."""


def run(
    command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S, environment: Mapping[str, str] | None = None
) -> str:
    """Standard output of a command. Raises StepError with the end of what it said."""
    merged = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"`{' '.join(command[:6])}` took longer than {timeout_s:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-12:]
        raise StepError("\n  ".join([f"`{' '.join(command[:8])}` ended with {done.returncode}:", *said]))
    return done.stdout


def wait_until(what: str, holds: Callable[[], bool], timeout_s: float) -> float:
    """Seconds until it held. Raises StepError."""
    begun_s = time.monotonic()
    while not holds():
        if time.monotonic() - begun_s > timeout_s:
            raise StepError(f"{what}: not within {timeout_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - begun_s


def compose_command() -> list[str]:
    """`docker compose`, or the older `docker-compose`. Raises DockerMissingError."""
    if shutil.which("docker") is None:
        raise DockerMissingError(
            "there is no `docker` here; on Debian: apt install docker.io docker-compose, as root"
        )
    daemon = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if daemon.returncode or "ERROR" in daemon.stderr:
        raise DockerMissingError(
            "the Docker daemon does not answer; start it (`systemctl start docker`, or `dockerd` as root) "
            "and let this user use its socket"
        )
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    raise DockerMissingError("there is no Compose here; on Debian: apt install docker-compose, as root")


def has_image(image: str) -> bool:
    """Whether the daemon has it."""
    found = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    return found.returncode == 0


def can_pull(image: str) -> bool:
    """Whether a registry gives it; it is there afterwards."""
    try:
        run(["docker", "pull", "--quiet", image], timeout_s=300)
    except StepError:
        return False
    return True


@dataclass(frozen=True)
class Container:
    """One container of the project, as it is now."""

    id: str
    service: str
    name: str
    status: str
    health: str | None
    restarts: int
    started_at: str
    pid: int

    @property
    def well(self) -> bool:
        """It runs and, where it is asked, says that it is healthy."""
        return self.status == "running" and self.health in (None, "healthy")


class Compose:
    """One project: its files, its name and its variables."""

    def __init__(
        self, command: Sequence[str], files: Sequence[str], project: str, environment: Mapping[str, str]
    ) -> None:
        self.project = project
        self._environment = {"COMPOSE_PROFILES": "cpu", **environment}
        self._command = [*command, "-p", project, *(word for file in files for word in ("-f", file))]

    def __call__(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Standard output of `compose ARGUMENTS`. Raises StepError."""
        return run([*self._command, *arguments], timeout_s, self._environment)

    def containers(self) -> list[Container]:
        """All of the project, those that have ended included."""
        label = f"label={PROJECT_LABEL}={self.project}"
        ids = run(["docker", "ps", "--all", "--quiet", "--filter", label]).split()
        found = json.loads(run(["docker", "inspect", *ids])) if ids else []
        return [_container(one) for one in found]

    def of(self, service: str) -> list[Container]:
        """Those of a service."""
        return [one for one in self.containers() if one.service == service]

    def left(self) -> list[str]:
        """Containers, networks and volumes of the project."""
        label = f"label={PROJECT_LABEL}={self.project}"
        kinds = (["ps", "--all"], ["network", "ls"], ["volume", "ls"])
        return [line for kind in kinds for line in run(["docker", *kind, "-q", "--filter", label]).split()]


def _container(inspected: Mapping[str, Any]) -> Container:
    state = inspected["State"]
    return Container(
        id=inspected["Id"],
        service=inspected["Config"]["Labels"].get(SERVICE_LABEL, ""),
        name=inspected["Name"].lstrip("/"),
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status"),
        restarts=inspected["RestartCount"],
        started_at=state["StartedAt"],
        pid=state["Pid"],
    )
