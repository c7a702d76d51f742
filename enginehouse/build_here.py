"""`enginehouse build` in this process: no Redis, no builder, the same steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_builder.build import StepCache, Stop
from engine_builder.build.placeholders import filled
from engine_builder.config import BuilderConfig
from engine_builder.errors import BuildStoppedError
from engine_builder.steps.step import Step
from enginehouse.build_view import BuildView
from enginehouse.builder_errors import told
from enginehouse.building import (
    Parts,
    Recipe,
    digest_cache,
    make,
    needed_here,
    open_cache,
    resolved,
    step_keys,
)
from model_registry.engine_specs import EngineSpec, Runtime
from model_registry.engines import Engine


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step as it would be run."""

    name: str
    key: str
    cached: bool
    argv: list[str]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    expects: tuple[str, ...]
    gpus: int


def build_here(
    spec: EngineSpec,
    runtime: Runtime,
    parts: Parts,
    config: BuilderConfig,
    cache: Path | None,
    store: str,
) -> Engine:
    """Build and publish. Ctrl-C and SIGTERM end the step that runs, in order; a second one ends all at once.

    Raises CommandError, and KeyboardInterrupt after Ctrl-C.
    """
    with told(), open_cache(config, cache) as opened, BuildView(spec.name) as view:
        recipe = _recipe(spec, runtime, parts, opened, view, here=True)
        steps = needed_here(recipe, parts)
        stop = Stop()
        with _ended_by_signals(stop) as got:
            try:
                return make(recipe, parts, steps, opened, store, view, config, stop=stop, confirm=stop.check)
            except BuildStoppedError:
                view.say("cancelled; steps that were done are kept, the same command goes on after them")
                if signal.SIGINT in got:
                    raise KeyboardInterrupt from None
                raise


@contextmanager
def _ended_by_signals(stop: Stop) -> Iterator[set[int]]:
    """Signals that ask for an end do so by `stop`; yields those that came."""
    got: set[int] = set()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: object) -> None:
        got.add(number)
        stop.now(f"ended by {signal.Signals(number).name}")
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def recipe_here(
    spec: EngineSpec, runtime: Runtime, parts: Parts, config: BuilderConfig, cache: Path | None
) -> Recipe:
    """The spec with nothing open, and its digest. Raises CommandError."""
    with told(), open_cache(config, cache) as opened, BuildView(spec.name) as view:
        return _recipe(spec, runtime, parts, opened, view, here=False)


def dry_run(
    spec: EngineSpec, runtime: Runtime, parts: Parts, config: BuilderConfig, cache: Path | None
) -> tuple[Recipe, list[PlannedStep]]:
    """What would be run. Raises CommandError."""
    with told(), open_cache(config, cache) as opened, BuildView(spec.name) as view:
        recipe = _recipe(spec, runtime, parts, opened, view, here=True)
        steps = needed_here(recipe, parts)
        keys = step_keys(steps)
        return recipe, [_planned(step, keys, opened) for step in steps]


def _recipe(
    spec: EngineSpec, runtime: Runtime, parts: Parts, cache: StepCache, view: BuildView, *, here: bool
) -> Recipe:
    told = -1

    def hashed(done: int, total: int) -> None:
        nonlocal told
        if (share := 10 * done // max(1, total)) > told:
            told = share
            view.line("digest", f"{done:,} of {total:,} bytes of the checkpoint")

    return resolved(spec, runtime, parts, digest_cache(cache), hashed, here=here)


def _planned(step: Step, keys: Mapping[str, str], cache: StepCache) -> PlannedStep:
    folders = {name: str(cache.folder(keys[name]) / "output") for name in (*step.needs, step.name)}
    folders["output"] = folders[step.name]
    return PlannedStep(
        step.name,
        keys[step.name],
        cache.has(keys[step.name]),
        [filled(word, folders) for word in step.argv],
        {name: filled(text, folders) for name, text in step.environment.items()},
        {path: filled(text, folders) for path, text in step.files.items()},
        step.expects,
        step.gpus,
    )


def as_document(recipe: Recipe, steps: list[PlannedStep]) -> dict[str, Any]:
    """A dry run, for JSON."""
    return {
        "engine": recipe.engine,
        "digest": recipe.digest,
        "runtime": recipe.runtime,
        "spec": recipe.spec.model_dump(mode="json"),
        "steps": [
            {
                "name": step.name,
                "key": step.key,
                "cached": step.cached,
                "argv": step.argv,
                "environment": dict(step.environment),
                "files": dict(step.files),
                "expects": list(step.expects),
                "gpus": step.gpus,
            }
            for step in steps
        ],
    }
