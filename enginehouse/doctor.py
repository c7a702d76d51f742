"""Doctor: what this machine has, what it lacks, and for what.

A check returns a Finding; one that `blocks` keeps `enginehouse up` from running at all, the others cost
a part of it.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from enginehouse.connection import local_root
from enginehouse.docker_here import docker_here
from enginehouse.errors import MachineError
from enginehouse.local.ports import reserved_port
from enginehouse.local.redis import find_redis
from enginehouse.local.triton_environment import check_triton, default_directory, libpython

Level = Literal["ok", "lacks part", "blocks", "optional"]

GIB = 1024**3
DISK_GIB = 1.5
SHM_MIB = 256
MARKS: dict[Level, str] = {
    "ok": "[green]ok[/]",
    "lacks part": "[yellow]lacks[/]",
    "blocks": "[red]missing[/]",
    "optional": "[dim]none[/]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    subject: str
    found: str
    level: Level
    needed_for: str
    remedy: str = ""

    @property
    def blocks(self) -> bool:
        """`up` cannot run without it."""
        return self.level == "blocks"


def examine(port: int, state_dir: Path) -> list[Finding]:
    """Every check, in the order of the table."""
    checks: list[Callable[[], Finding]] = [
        check_python,
        check_cores,
        check_memory,
        lambda: check_disk(state_dir),
        check_shm,
        lambda: check_port(port, state_dir),
        check_redis,
        check_real_triton,
        check_triton_environment,
        check_gpu,
        check_docker,
    ]
    return [check() for check in checks]


def check_python() -> Finding:
    """3.11 or newer."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    level: Level = "ok" if sys.version_info >= (3, 11) else "blocks"
    return Finding("Python", version, level, "everything", "install Python 3.11 or 3.12")


def check_real_triton() -> Finding:
    """What the real server needs of machine and Python."""
    problem = check_triton()
    if problem is not None:
        return Finding("Triton", problem.message, "lacks part", "the real Triton server", problem.remedy)
    return Finding("Triton", f"can run: {platform.machine()}, {libpython()}", "ok", "the real Triton server")


def check_triton_environment() -> Finding:
    """The server's own environment, made at the first start."""
    made = (default_directory() / "bin").exists()
    found = str(default_directory()) if made else "not installed yet; the first `up` does (about 15 s)"
    return Finding("Triton install", found, "ok" if made else "optional", "a quick first start")


def check_cores() -> Finding:
    """Two or more."""
    cores = len(os.sched_getaffinity(0))
    return Finding(
        "Cores",
        str(cores),
        "ok" if cores >= 2 else "lacks part",
        "answers at a readable speed",
        "use 2 or more",
    )


def available_memory_bytes() -> int:
    """What the kernel says new processes may take without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise MachineError("/proc/meminfo does not say MemAvailable", "a Linux kernel newer than 3.14 is needed")


def check_memory() -> Finding:
    """Enough for the demo stack."""
    from enginehouse.local.stack import DEMO_STACK, needed_memory_bytes

    available, needed = available_memory_bytes(), needed_memory_bytes(DEMO_STACK)
    return Finding(
        "Memory",
        f"{available / GIB:.1f} GiB available, the demo needs {needed / GIB:.1f}",
        "ok" if available >= needed else "blocks",
        "the demo stack",
        "end something, or run a smaller stack: --stack FILE",
    )


def check_disk(state_dir: Path) -> Finding:
    """Room for the state directory."""
    existing = next(folder for folder in (state_dir, *state_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return Finding(
        "Disk",
        f"{free / GIB:.1f} GiB free at {existing}",
        "ok" if free >= DISK_GIB * GIB else "lacks part",
        "the Triton environment, Redis, logs",
        f"free {DISK_GIB} GiB, or choose another --state-dir",
    )


def check_shm() -> Finding:
    """Room in /dev/shm for the Python backend."""
    free = shutil.disk_usage("/dev/shm").free  # noqa: S108 - the kernel's shared memory, not a temporary file
    return Finding(
        "Shared memory",
        f"{free / 1024**2:.0f} MiB free in /dev/shm",
        "ok" if free >= SHM_MIB * 1024**2 else "lacks part",
        "the real Triton server",
        f"at least {SHM_MIB} MiB; in a container: --shm-size=1g",
    )


def check_port(port: int, state_dir: Path) -> Finding:
    """The gateway's port is free, or held by the stack that runs here already."""
    try:
        with reserved_port("127.0.0.1", port):
            return Finding("Port", f"{port} is free", "ok", "the gateway")
    except MachineError as error:
        root = local_root(state_dir)
        if root is not None and urlsplit(root).port == port:
            return Finding("Port", f"{port} is that of the stack that runs already", "ok", "the gateway")
        return Finding("Port", error.message, "blocks", "the gateway", error.remedy or "")


def check_redis() -> Finding:
    """A Redis binary."""
    binary = find_redis()
    return Finding(
        "Redis",
        str(binary) if binary else "none",
        "ok" if binary else "blocks",
        "the registry",
        "apt install redis-server, or pip install 'enginehouse[local]'",
    )


def check_gpu() -> Finding:
    """An NVIDIA driver, if any; the CPU engines need none."""
    driver = Path("/proc/driver/nvidia/version")
    found = driver.read_text().splitlines()[0] if driver.exists() else "none"
    level: Level = "ok" if driver.exists() else "optional"
    return Finding("GPU driver", found, level, "engines on a GPU of this machine")


def check_docker() -> Finding:
    """Docker and Compose; `up` needs neither."""
    here = docker_here()
    level: Level = "lacks part" if here.lacking else "optional" if here.remedy else "ok"
    return Finding("Docker", here.found, level, "`docker compose up`, pools of containers", here.remedy)


def show(findings: list[Finding]) -> None:
    """Print the table and a last line that says what it means."""
    from rich.table import Table

    from enginehouse.console import output

    table = Table("", "check", "found", "needed for", box=None, pad_edge=False)
    for finding in findings:
        table.add_row(MARKS[finding.level], finding.subject, finding.found, finding.needed_for)
    console = output()
    console.print(table)
    for finding in findings:
        if finding.level in ("lacks part", "blocks"):
            console.print(f"{finding.subject}: {finding.remedy}", highlight=False)
    if any(finding.blocks for finding in findings):
        console.print("[red]`enginehouse up` cannot run here yet.[/]")
    else:
        console.print("`enginehouse up` can run here.")
