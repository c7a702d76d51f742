"""History: how long steps took before, by name and size; from it comes what time is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from engine_builder.steps.step import Step
from telemetry.whole_file import write_whole

_KEPT = 8
"""Durations of each sort, the newest."""


def size_class(step: Step) -> str:
    """Steps that take about as long: the same program, GPUs, and output to a factor of two."""
    return f"{step.name}/{step.gpus}/{step.disk_bytes.bit_length()}"


class History:
    """Durations in seconds, in a file; of builders that write at the same moment one is forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def expected_s(self, step: Step) -> float | None:
        """The median of what the like took; None where none was seen."""
        taken = self._read().get(size_class(step))
        return median(taken) if taken else None

    def add(self, step: Step, seconds: float) -> None:
        """Remember one that has succeeded."""
        known = dict(self._read())
        known[size_class(step)] = [*known.get(size_class(step), ()), round(seconds, 3)][-_KEPT:]
        write_whole(self._path, json.dumps(known, sort_keys=True))

    def _read(self) -> Mapping[str, list[float]]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): [float(one) for one in taken] for name, taken in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
