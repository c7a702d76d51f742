"""Docker on this machine, as far as the compose file needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NamedTuple

TIMEOUT_S = 5.0
INSTALL = "on Debian: apt install docker.io docker-compose, as root"


class DockerHere(NamedTuple):
    """What was found; `lacking`: a part of it is there, and of no use without the rest."""

    found: str
    lacking: bool = False
    remedy: str = ""


def docker_here() -> DockerHere:
    """Client, daemon and Compose, in the order in which they are needed."""
    if shutil.which("docker") is None:
        return DockerHere("none", remedy=INSTALL)
    server = _said("docker", "version", "--format", "{{.Server.Version}}")
    if server is None:
        where = os.environ.get("DOCKER_HOST", "its socket")
        return DockerHere(
            f"a client, but no daemon answers at {where}",
            lacking=True,
            remedy="start it (systemctl start docker), and add this user to the group `docker`",
        )
    for command in (("docker", "compose"), ("docker-compose",)):
        if (version := _said(*command, "version", "--short")) is not None:
            return DockerHere(f"daemon {server}, Compose {version} (`{' '.join(command)}`)")
    return DockerHere(f"daemon {server}, but no Compose", lacking=True, remedy=INSTALL)


def _said(*command: str) -> str | None:
    """What a command wrote; None when it failed, took too long, or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None
