"""The load generator of `src/load.c`: where it aims, and one measurement."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench import bodies, tokenizer
from bench.build import BenchError, tool
from bench.processes import cpu_s, machine_busy_s

Mode = Literal["requests", "rate", "streams", "leave"]
Mark = Literal["ns", "id"]


@dataclass(frozen=True, slots=True)
class Bodies:
    """Request bodies in files of `folder`, by stream or not and by tokens wanted."""

    folder: Path
    make: Callable[[bool, int], dict[str, Any]]
    """(stream, tokens) -> JSON object."""

    def file(self, stream: bool, tokens: int) -> Path:
        path = self.folder / f"{'stream' if stream else 'plain'}-{tokens}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.make(stream, tokens), separators=(",", ":")))
        return path


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and how."""

    port: int
    path: str
    bodies: Bodies
    mark: Mark = "ns"
    headers: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    """Whose CPU is counted; none for a direct call."""
    beside: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Other processes whose CPU is told: name -> pids."""


def command(target: Target, mode: Mode, tokens: int, *options: object) -> list[str]:
    """Argument list of one run; `options` as in the head of `load.c`."""
    stream = mode in ("streams", "leave")
    built = [str(tool("load")), mode, "-p", str(target.port), "--path", target.path, "--mark", target.mark]
    built += ["--tokens", str(tokens), "--body", str(target.bodies.file(stream, tokens))]
    built += ["--unique", bodies.NUMBER]
    if target.mark == "id":
        built += ["--id-base", str(tokenizer.ID_BASE), "--id-count", str(tokenizer.ID_COUNT)]
        built += ["--tick-us", str(tokenizer.TICK_US)]
    for header in target.headers:
        built += ["-H", header]
    for name, pids in {"subject": target.pids, **target.beside}.items():
        if pids:
            built += ["--cpu", f"{name}={','.join(map(str, pids))}"]
    return built + [str(option) for option in options]


def run(core: int, target: Target, mode: Mode, tokens: int, *options: object) -> dict[str, Any]:
    """One measurement: what `load` prints, and `other_cores`, which everything else kept busy meanwhile."""
    pids = [*target.pids, *(pid for group in target.beside.values() for pid in group)]
    busy, ours, began = machine_busy_s(), cpu_s(pids) + _children_s(), time.monotonic()
    done = subprocess.run(
        ["taskset", "-c", str(core), *command(target, mode, tokens, *options)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"load {mode} ended with {done.returncode}: {done.stderr or done.stdout}")
    result = parsed(done.stdout)
    others_s = machine_busy_s() - busy - (cpu_s(pids) + _children_s() - ours)
    result["other_cores"] = max(0.0, others_s / (time.monotonic() - began))
    return result


def parsed(output: str) -> dict[str, Any]:
    """What `load` printed; raises BenchError when that is not its report."""
    try:
        result: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError as error:
        raise BenchError(f"load printed no report: {output!r}") from error
    return result


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
