"""Building: from a spec to a published engine, put together from the parts of `engine_builder`.

The one place that names them all: commands and builder processes go through it, so that an engine is made
alike by whoever makes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from engine_builder.build import Guards, Observer, StepCache, Stop, run, visible_gpus
from engine_builder.build.job import Job
from engine_builder.checkpoint import Checkpoint, DigestCache, Progress
from engine_builder.config import BuilderConfig
from engine_builder.errors import BuilderError, CheckpointError, SpecError
from engine_builder.identity import engine_digest, engine_name
from engine_builder.package import Published, engine_of, package, publish, read_manifest
from engine_builder.plan import Roofline, card_of, resolve
from engine_builder.plan.resolving import draft_shape
from engine_builder.steps import Step, Tools, build_steps, keys
from enginehouse.engine_places import EnginePlaces
from enginehouse.local.state_dir import default_state_dir
from model_registry.build_jobs.entities import AskedBuild
from model_registry.engine_specs import EngineSpec, Runtime
from model_registry.engines import Engine

_WAIT_S = 0.1
_NOT_YET = "0" * 64
"""In place of a digest that nothing was made with."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A spec that leaves nothing open, and the identity of what comes of it."""

    spec: EngineSpec
    checkpoint: Checkpoint
    checkpoint_digest: str
    runtime: Runtime
    digest: str
    """The engine's."""

    @property
    def engine(self) -> str:
        return engine_name(self.spec, self.digest)

    def asked(self, store: str, by: str = "") -> AskedBuild:
        """As a build for builders."""
        computed = self.spec.lane == "trt-engine" or self.spec.precision not in {"bf16", "fp16"}
        on_gpus = self.runtime == "tensorrt-llm" and computed
        return AskedBuild(
            engine=self.engine,
            digest=self.digest,
            spec=self.spec.model_dump(mode="json"),
            runtime=self.runtime,
            store_url=store,
            gpu_class=self.spec.gpu_class if on_gpus else "",
            gpus=self.spec.gpus if on_gpus else 0,
            asked_by=by,
        )


class Parts(Protocol):
    """What is put together here."""

    def runtime(self) -> Runtime:
        """That of this machine: TensorRT-LLM where its compiler is found."""

    def resolve(self, spec: EngineSpec, checkpoint: Checkpoint) -> EngineSpec:
        """A spec that leaves nothing open. Raises SpecError."""

    def steps(self, recipe: Recipe) -> tuple[Step, ...]:
        """How to build it here. Raises BuilderError naming the program that is missing."""

    def package(self, recipe: Recipe, outputs: Mapping[str, Path], into: Path) -> Path:
        """A signed folder below `into`. Raises PackageError."""

    def publish(self, recipe: Recipe, folder: Path, store: str) -> Engine:
        """The folder in the store by one rename, and the engine's record. Raises StoreError."""


class HouseParts:
    """The parts of `engine_builder`. `places`: whose key signs, and what makes packaged models loadable."""

    def __init__(self, places: EnginePlaces) -> None:
        self._places = places

    def runtime(self) -> Runtime:
        found = Tools.find("tensorrt-llm")
        return "tensorrt-llm" if "trtllm-build" in found.programs else "emulated"

    def resolve(self, spec: EngineSpec, checkpoint: Checkpoint) -> EngineSpec:
        return resolve(spec, checkpoint)

    def steps(self, recipe: Recipe) -> tuple[Step, ...]:
        tools = Tools.find(recipe.runtime)
        return build_steps(recipe.spec, recipe.checkpoint, recipe.checkpoint_digest, tools)

    def package(self, recipe: Recipe, outputs: Mapping[str, Path], into: Path) -> Path:
        spec = recipe.spec
        return package(
            spec,
            recipe.checkpoint,
            outputs,
            recipe.digest,
            recipe.runtime,
            into,
            self._places.signer,
            card_of(spec, recipe.checkpoint, Roofline(), draft_shape(spec)),
            checkpoint_digest=recipe.checkpoint_digest,
            steps=keys(self.steps(recipe)),
            finish=self._places.finish(recipe.runtime),
        )

    def publish(self, recipe: Recipe, folder: Path, store: str) -> Engine:  # noqa: ARG002 - the folder tells
        manifest, data = read_manifest(folder), (folder / "manifest.json").read_bytes()
        return engine_of(Published(publish(folder, store), manifest, hashlib.sha256(data).hexdigest()))


def resolved(
    spec: EngineSpec,
    runtime: Runtime,
    parts: Parts,
    digests: DigestCache,
    progress: Progress | None = None,
    *,
    here: bool = False,
) -> Recipe:
    """Close what the spec leaves open and digest its checkpoint, which takes minutes the first time.

    `here`: the build is to run in this process, so that programs which are missing show before those
    minutes. Raises CheckpointError, SpecError, BuilderError.
    """
    checkpoint = Checkpoint.open(spec.checkpoint)
    decided = parts.resolve(spec, checkpoint)
    if here:
        needed_here(Recipe(decided, checkpoint, _NOT_YET, runtime, _NOT_YET), parts)
    of_weights = checkpoint.digest(digests, progress)
    return Recipe(decided, checkpoint, of_weights, runtime, engine_digest(decided, of_weights, runtime))


def again(asked: AskedBuild, digests: DigestCache, progress: Progress | None = None) -> Recipe:
    """The recipe that was asked for. Raises SpecError, and CheckpointError where it is another one here."""
    try:
        spec = EngineSpec.model_validate(asked.spec)
    except ValidationError as error:
        raise SpecError(
            f"the spec of {asked.engine} cannot be read here: {error}",
            "asker and builder are of different releases: make them one",
        ) from error
    checkpoint = Checkpoint.open(spec.checkpoint)
    of_weights = checkpoint.digest(digests, progress)
    digest = engine_digest(spec, of_weights, asked.runtime)
    if digest != asked.digest:
        raise CheckpointError(
            f"{spec.checkpoint} is not what it was when {asked.engine} was asked for",
            "ask for it again; if asker and builder are different machines, name a checkpoint that both see",
        )
    return Recipe(spec, checkpoint, of_weights, asked.runtime, digest)


def make(
    recipe: Recipe,
    parts: Parts,
    steps: Sequence[Step],
    cache: StepCache,
    store: str,
    observer: Observer,
    config: BuilderConfig,
    *,
    stop: Stop | None = None,
    confirm: Callable[[], None] = lambda: None,
) -> Engine:
    """Run the steps, package what they left, and publish it. `confirm` is called right before the rename.

    Raises BuilderError.
    """
    stop = stop or Stop()
    outputs = run(
        steps, cache, observer, stop=stop, guards=guards(config, recipe.runtime), grace_s=config.grace_s
    )
    while True:
        stop.check()
        with cache.make(recipe.digest) as work:  # which also removes what killed packagers have left
            if work is not None:
                observer.line("package", f"packaging {recipe.engine}")
                folder = parts.package(recipe, outputs, work.output)
                confirm()
                engine = parts.publish(recipe, folder, store)
                observer.line("publish", f"published at {engine.url}")
                return engine
        stop.wait(_WAIT_S)


def maker(
    parts: Parts, config: BuilderConfig, cache_path: Path | None, store: str
) -> Callable[[Job], Engine]:
    """What a builder process does with each build it takes; `store`: for builds that name none."""

    def build(job: Job) -> Engine:
        asked = job.claim.build.asked
        with open_cache(config, cache_path) as cache:
            recipe = again(asked, digest_cache(cache), lambda *_: job.stop.check(between=True))
            steps = parts.steps(recipe)
            where = asked.store_url or store
            stop, confirm = job.stop, job.confirm
            engine = make(recipe, parts, steps, cache, where, job, config, stop=stop, confirm=confirm)
        if config.cache_max_bytes is not None:
            cache.collect(config.cache_max_bytes)
        return engine

    return build


def guards(config: BuilderConfig, runtime: Runtime) -> Guards:
    """What must stay free on this machine."""
    return Guards(
        config.min_free_disk_bytes,
        config.min_free_memory_bytes,
        gpus=visible_gpus if runtime == "tensorrt-llm" else None,
    )


def needed_here(recipe: Recipe, parts: Parts) -> tuple[Step, ...]:
    """The steps, for a build in this process. Raises BuilderError with the way out of missing programs."""
    try:
        return parts.steps(recipe)
    except SpecError:
        raise
    except BuilderError as error:
        if recipe.runtime == "emulated":
            raise
        raise BuilderError(
            str(error),
            f"{error.remedy}\nor build with `--runtime emulated`: an engine for CPU servers, to try the "
            "whole path without a GPU".lstrip(),
        ) from error


def step_keys(steps: Sequence[Step]) -> dict[str, str]:
    """The cache's key of each step by name."""
    return keys(tuple(steps))


def open_cache(config: BuilderConfig, named: Path | None = None) -> StepCache:
    """The cache that is named, else the settings', else the state folder's. Raises StoreError."""
    return StepCache(named or config.cache_path or default_state_dir() / "builds")


def digest_cache(cache: StepCache) -> DigestCache:
    """Digests of checkpoints' files that were computed before."""
    return DigestCache(cache.root / "checkpoints.json")
