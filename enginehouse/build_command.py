"""What `enginehouse build` does with its options: where the spec is, who builds, what is printed."""

from __future__ import annotations

import asyncio
import getpass
import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from enginehouse import builds_api
from enginehouse.build_here import PlannedStep, as_document, build_here, dry_run, recipe_here
from enginehouse.build_listing import as_json
from enginehouse.build_specs import spec_of_file, spec_of_registry
from enginehouse.build_there import engine_of, follow, outcome
from enginehouse.build_waiting import somebody_can, why_it_waits
from enginehouse.building import HouseParts, Parts, Recipe
from enginehouse.connection import Connection, locate
from enginehouse.engine_places import EnginePlaces
from enginehouse.errors import ApiError
from enginehouse.settings import load
from model_registry.engine_specs import EngineSpec, Runtime
from model_registry.engines import Engine
from model_registry.manifests import to_yaml


@dataclass(frozen=True, slots=True)
class Asked:
    """The options."""

    name: str | None
    file: str | None
    local: bool
    detach: bool
    runtime: Runtime | None
    dry_run: bool
    cache: Path | None
    store: str | None
    wait_s: float
    json: bool


def parts(places: EnginePlaces) -> Parts:
    """What engines are made with."""
    return HouseParts(places)


def run_build(
    asked: Asked, config_file: Path | None, url: str | None, key: str | None, state_dir: Path | None
) -> None:
    """Build, or show what would be done. Raises CommandError."""
    settings = load(config_file).settings
    config, places = settings.builder, EnginePlaces.of(settings, state_dir)
    made_with = parts(places)
    connection = _connection(asked, url, key, state_dir)
    spec = _spec(asked, connection)
    runtime = asked.runtime or "tensorrt-llm"
    if asked.dry_run:
        recipe, steps = dry_run(spec, runtime, made_with, config, asked.cache)
        _print(json.dumps(as_document(recipe, steps), indent=2) if asked.json else _shown(recipe, steps))
        return
    if asked.local or connection is None:
        store = asked.store or places.store
        engine = build_here(spec, runtime, made_with, config, asked.cache, store)
        _print(_engine(engine, asked))
        return
    recipe = recipe_here(spec, runtime, made_with, config, asked.cache)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    build = asyncio.run(builds_api.ask(connection, recipe.asked(asked.store or "", by)))
    if asked.detach:
        _print(as_json(build) if asked.json else build.id)
        if build.state == "queued":
            builders = asyncio.run(builds_api.builders(connection))
            if not somebody_can(build.asked, builders):
                sys.stderr.write(f"note: {why_it_waits(build.asked, builders)}\n")
        return
    build = follow(connection, build, asked.wait_s)
    outcome(build)
    _print(_engine(asyncio.run(engine_of(connection, build)), asked))


def _connection(asked: Asked, url: str | None, key: str | None, state_dir: Path | None) -> Connection | None:
    """The gateway, where one is known; None where none is, and none is needed."""
    try:
        return locate(url, key, state_dir)
    except ApiError:
        if asked.detach or asked.file is None:
            raise
        return None


def _spec(asked: Asked, connection: Connection | None) -> EngineSpec:
    if asked.file is not None:
        return spec_of_file(asked.file, asked.name)
    assert connection is not None
    assert asked.name is not None
    return asyncio.run(spec_of_registry(connection, asked.name))


def _engine(engine: Engine, asked: Asked) -> str:
    """As `enginehouse apply` takes it."""
    return engine.model_dump_json(indent=2) if asked.json else to_yaml([engine]).rstrip()


def _shown(recipe: Recipe, steps: list[PlannedStep]) -> str:
    lines = [f"# {recipe.engine}, runtime {recipe.runtime}: {len(steps)} steps"]
    for number, step in enumerate(steps, start=1):
        done = "; in the cache, is skipped" if step.cached else ""
        gpus = f", {step.gpus} GPUs" if step.gpus else ""
        lines.append(
            f"# {number}. {step.name}{gpus}, leaves {', '.join(step.expects) or 'what it will'}{done}"
        )
        lines += [f"#    writes {path} ({len(text)} characters)" for path, text in step.files.items()]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in step.environment.items()]
        lines.append(shlex.join(step.argv))
    return "\n".join(lines)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
