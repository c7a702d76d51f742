"""Small real steps, and an observer that remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_builder.build import Guards, Progress, StepCache
from engine_builder.steps.step import Step

DEADLINE_S = 10.0
ROOMY = Guards(min_free_disk_bytes=0, min_free_memory_bytes=0)


class Watcher:
    """Remembers what a build told."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.lines: list[tuple[str, str]] = []
        self._news = threading.Condition()

    def progress(self, progress: Progress) -> None:
        with self._news:
            self.told.append(progress)
            self._news.notify_all()

    def line(self, step: str, text: str) -> None:
        with self._news:
            self.lines.append((step, text))
            self._news.notify_all()

    def wait(self, condition: Callable[[Watcher], object]) -> None:
        """Until `condition` holds of what was told."""
        with self._news:
            assert self._news.wait_for(lambda: condition(self), DEADLINE_S)

    @property
    def phases(self) -> list[tuple[str, str]]:
        """Each (step, phase), without repetitions."""
        found: list[tuple[str, str]] = []
        for one in self.told:
            if [(one.step, one.phase)] != found[-1:]:
                found.append((one.step, one.phase))
        return found


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[StepCache]:
    with StepCache(tmp_path / "cache") as cache:
        yield cache


def sh(name: str, script: str, *needs: str, **changes: Any) -> Step:
    """A step that is a shell script."""
    return Step(name, ("sh", "-c", script), needs=needs, **changes)


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so soon."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False
