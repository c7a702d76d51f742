"""Runner: steps in their order, each from the cache or by its program, so that it can be killed at any time.

A step is run in a work folder that becomes its entry of the cache by one rename, after it has exited with 0
and left what it is to leave. So whatever is found under a key is whole, and the next run goes on after it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_builder.build import placeholders
from engine_builder.build.cache import LOG, SCRIPT, StepCache, Work
from engine_builder.build.guards import Guards
from engine_builder.build.history import History
from engine_builder.build.log import Lines, LogFile
from engine_builder.build.program import run_program
from engine_builder.build.progress import Observer, Phase, Progress, Silent, remaining_s
from engine_builder.build.script import script
from engine_builder.build.stop import Stop
from engine_builder.errors import StepError, StepTimeoutError
from engine_builder.steps.step import OUTPUT, Step, keys

_TOLD_EVERY_S = 0.25
_GUARDED_EVERY_S = 1.0
_WAIT_S = 0.1
OWN_PREFIX = "ENGINEHOUSE_"
"""Variables that programs of steps do not get: among them is the way to Redis, with its password."""


def run(
    steps: Sequence[Step],
    cache: StepCache,
    observer: Observer | None = None,
    *,
    stop: Stop | None = None,
    guards: Guards | None = None,
    grace_s: float = 10.0,
) -> dict[str, Path]:
    """Do all `steps`; returns what each has left, by name, which stays there until `cache` is closed.

    `grace_s`: from SIGTERM to SIGKILL for a program that is ended. Raises StepError, StepTimeoutError,
    NoRoomError, BuildStoppedError, StoreError.
    """
    return _Run(tuple(steps), cache, observer or Silent(), stop or Stop(), guards or Guards(), grace_s).all()


class _Run:
    def __init__(
        self,
        steps: tuple[Step, ...],
        cache: StepCache,
        observer: Observer,
        stop: Stop,
        guards: Guards,
        grace_s: float,
    ) -> None:
        _check(steps)
        self._steps = steps
        self._names = [step.name for step in steps]
        self._keys = keys(steps)
        self._cache = cache
        self._observer = observer
        self._stop = stop
        self._guards = guards
        self._grace_s = grace_s
        self._history = History(cache.root / "history.json")
        self._expected_s = {
            step.name: 0.0 if cache.has(self._keys[step.name]) else self._history.expected_s(step)
            for step in steps
        }
        self._began_s = time.monotonic()
        self._outputs: dict[str, Path] = {}

    def all(self) -> dict[str, Path]:
        for step in self._steps:
            self._outputs[step.name] = self._one(step)
        return dict(self._outputs)

    def _one(self, step: Step) -> Path:
        key = self._keys[step.name]
        ran, began_s = False, time.monotonic()
        while (entry := self._cache.use(key)) is None:
            self._stop.check(between=True)
            with self._cache.make(key) as work:
                if work is None:
                    self._wait(step, time.monotonic() - began_s)
                elif not self._cache.has(key):
                    self._make(step, work)
                    ran = True
        self._expected_s[step.name] = 0.0
        self._tell(step, "done" if ran else "cached", entry.seconds if ran else 0.0)
        return entry.output

    def _wait(self, step: Step, waited_s: float) -> None:
        if waited_s > step.timeout_s:
            raise StepTimeoutError(
                step.name,
                f"another builder has been at it for {waited_s:.0f} s",
                f"is it stuck? `fuser {self._cache.root}/locks/*` says which processes make or use steps",
            )
        self._tell(step, "waiting", waited_s)
        self._stop.wait(_WAIT_S)

    def _make(self, step: Step, work: Work) -> None:
        self._guards.before(step, self._cache.root)
        folders = {name: str(self._outputs[name]) for name in step.needs}
        (work.folder / SCRIPT).write_text(script(step, work.key, folders), encoding="utf-8")
        (work.folder / SCRIPT).chmod(0o755)
        filled = _Filled.of(step, {**folders, "output": str(work.output)})
        for path, text in filled.files.items():
            target = work.output / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        began_s = time.monotonic()
        self._tell(step, "running", 0.0)
        with LogFile(work.folder / LOG) as log:
            try:
                self._program(step, work, filled, log)
                _check_left(step, work.output)
            except StepError as error:
                error.log_end = "\n".join(log.tail)
                kept = self._cache.keep_failure(work, step.name)
                error.remedy = f"{error.remedy}\nits log: {kept / LOG}\nby hand: {kept / SCRIPT}".lstrip()
                raise
        seconds = time.monotonic() - began_s
        work.publish(step.name, seconds, {"argv": list(step.argv), "inputs": dict(step.inputs)})
        self._history.add(step, seconds)

    def _program(self, step: Step, work: Work, filled: _Filled, log: LogFile) -> None:
        lines = Lines()

        def told(found: Sequence[str]) -> None:
            for line in found:
                log.write(line)
                self._observer.line(step.name, line)

        status = run_program(
            filled.argv,
            work.output,
            _environment(filled.environment),
            lambda data: told(lines.feed(data, time.monotonic())),
            self._watch(step),
            self._grace_s,
        )
        told(lines.end())
        if status != 0:
            raise StepError(step.name, _why(status), _remedy(status))

    def _watch(self, step: Step) -> Callable[[], None]:
        """What is looked at while a program runs."""
        began_s = guarded_s = told_s = time.monotonic()

        def watch() -> None:
            nonlocal guarded_s, told_s
            now_s = time.monotonic()
            self._stop.check()
            if now_s - began_s > step.timeout_s:
                raise StepTimeoutError(
                    step.name,
                    f"has not ended within {step.timeout_s:g} s",
                    "is the machine busy, or the program stuck? what it wrote last is in its log",
                )
            if now_s - guarded_s >= _GUARDED_EVERY_S:
                guarded_s = now_s
                self._guards.during(step, self._cache.root)
            if now_s - told_s >= _TOLD_EVERY_S:
                told_s = now_s
                self._tell(step, "running", now_s - began_s)

        return watch

    def _tell(self, step: Step, phase: Phase, step_elapsed_s: float) -> None:
        number = self._names.index(step.name) + 1
        over = phase in {"cached", "done"}
        left_s = remaining_s(self._names, number, 0.0 if over else step_elapsed_s, self._expected_s)
        elapsed_s = time.monotonic() - self._began_s
        self._observer.progress(
            Progress(step.name, number, len(self._steps), phase, elapsed_s, step_elapsed_s, left_s)
        )


@dataclass(frozen=True, slots=True)
class _Filled:
    """A step's texts with their folders."""

    argv: list[str]
    environment: Mapping[str, str]
    files: Mapping[str, str]

    @classmethod
    def of(cls, step: Step, folders: Mapping[str, str]) -> _Filled:
        found = cls(
            [placeholders.filled(word, folders) for word in step.argv],
            {name: placeholders.filled(text, folders) for name, text in step.environment.items()},
            {path: placeholders.filled(text, folders) for path, text in step.files.items()},
        )
        path = found.environment.get("PATH", os.environ.get("PATH"))
        if shutil.which(found.argv[0], path=path) is None:
            raise StepError(
                step.name,
                f"program {found.argv[0]!r} is not on PATH",
                "run the build where TensorRT-LLM is installed, or with `--runtime emulated`",
            )
        return found


def _check(steps: Sequence[Step]) -> None:
    seen: set[str] = set()
    for step in steps:
        if step.name in seen or step.name == OUTPUT.strip("{}"):
            raise StepError(step.name, "its name is taken", "name each step once, and none `output`")
        if not step.argv:
            raise StepError(step.name, "it has no program", "give it `argv`")
        if missing := [name for name in step.needs if name not in seen]:
            raise StepError(step.name, f"needs {', '.join(missing)}", "put what it needs before it")
        placeholders.check(step)
        seen.add(step.name)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith(OWN_PREFIX)}
    return {**given, **own}


def _check_left(step: Step, output: Path) -> None:
    for pattern in step.expects:
        if not any(output.glob(pattern)):
            there = ", ".join(sorted(path.name for path in output.iterdir())[:20]) or "nothing"
            raise StepError(
                step.name,
                f"has left no {pattern}; there is {there}",
                "it exited as if all were well: look at what it wrote",
            )


def _why(status: int) -> str:
    if status > 128:
        return f"its program was ended by signal {status - 128}"
    return f"its program exited with {status}"


def _remedy(status: int) -> str:
    if status == 137:
        return "SIGKILL comes from the kernel where memory runs out: see `dmesg`"
    return ""
