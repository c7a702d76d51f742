"""Guards: enough disk, memory and GPUs before a step, and enough of the first two while it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine_builder.amounts import bytes_told
from engine_builder.errors import NoRoomError, StepError
from engine_builder.steps.step import Step

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def free_disk_bytes(folder: Path) -> int:
    """What this process may still write on the file system of `folder`."""
    return shutil.disk_usage(folder).free


def free_memory_bytes() -> int | None:
    """Memory that programs can still get here, of the machine or of its control group; None: no telling."""
    found = [free for free in (_of_machine(), _of_cgroup()) if free is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_cgroup() -> int | None:
    """Page cache that can be dropped counts as free."""
    try:
        most = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else int(most) - used + int(stat.get("inactive_file", 0))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """GPUs that a program started here would see."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([one for one in named.split(",") if one.strip() not in {"", "-1"}])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


@dataclass(frozen=True, slots=True)
class Guards:
    """What must stay free; `disk` and `memory` are what tells."""

    min_free_disk_bytes: int = 1 << 30
    min_free_memory_bytes: int = 1 << 28
    disk: Callable[[Path], int] = free_disk_bytes
    memory: Callable[[], int | None] = free_memory_bytes
    gpus: Callable[[], int] | None = None
    """GPUs that are there; None: steps are done by programs that need none."""

    def before(self, step: Step, folder: Path) -> None:
        """Raise NoRoomError or StepError unless there is what `step` wants."""
        if self.gpus is not None and step.gpus and (there := self.gpus()) < step.gpus:
            raise StepError(
                step.name,
                f"needs {step.gpus} GPUs, and {there} are visible",
                "run it where there are as many (`nvidia-smi -L`), and look at CUDA_VISIBLE_DEVICES; "
                "or build with `--runtime emulated`, for CPU engines",
            )
        self._disk(step, folder, step.disk_bytes + self.min_free_disk_bytes)
        self._memory(step, step.memory_bytes + self.min_free_memory_bytes)

    def during(self, step: Step, folder: Path) -> None:
        """Raise NoRoomError when too little is left for others on this machine."""
        self._disk(step, folder, self.min_free_disk_bytes)
        self._memory(step, self.min_free_memory_bytes)

    def _disk(self, step: Step, folder: Path, needed: int) -> None:
        free = self.disk(folder)
        if free < needed:
            raise NoRoomError(
                f"step {step.name!r} needs {bytes_told(needed)} free at {folder}, and {bytes_told(free)} are",
                "make room (`enginehouse builds gc --max-gib N` removes what was not used lately), or name "
                f"a cache on another disk by --cache; {bytes_told(self.min_free_disk_bytes)} of it are "
                "the floor that builder.min_free_disk_gib sets",
            )

    def _memory(self, step: Step, needed: int) -> None:
        free = self.memory()
        if free is not None and free < needed:
            raise NoRoomError(
                f"step {step.name!r} needs {bytes_told(needed)} of memory, and {bytes_told(free)} are free",
                "end other programs, or build on a larger machine; "
                f"{bytes_told(self.min_free_memory_bytes)} of it are the floor that "
                "builder.min_free_memory_gib sets",
            )
