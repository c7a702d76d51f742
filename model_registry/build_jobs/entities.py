"""Engine builds as values, and a builder's hold of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec

from model_registry.engine_specs import Runtime

BuildState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
BUILD_STATES: tuple[BuildState, ...] = get_args(BuildState)
ENDED: frozenset[BuildState] = frozenset({"succeeded", "failed", "cancelled"})


PRESENT_S = 3.0
"""How often a builder says that it is there."""
GONE_S = 5 * PRESENT_S


class AskedBuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be built, and where the engine goes; nothing in it is open any more."""

    engine: str
    """Name of the engine to be."""
    digest: str
    """Of the engine: builds that agree in it are one."""
    spec: Mapping[str, Any]
    """The resolved EngineSpec."""
    runtime: Runtime
    store_url: str
    gpu_class: str = ""
    """That its programs must run on; empty: any machine will do."""
    gpus: Annotated[int, msgspec.Meta(ge=0)] = 0
    """That the step with the most takes."""
    asked_by: str = ""


class BuildError(msgspec.Struct, frozen=True):
    """Why a build has not led to an engine."""

    message: str
    remedy: str = ""
    log_end: str = ""


class BuildProgress(msgspec.Struct, frozen=True):
    """Where a build is, as its builder last said."""

    step: str = ""
    number: int = 0
    steps: int = 0
    phase: str = ""
    elapsed_s: float = 0.0
    step_elapsed_s: float = 0.0
    eta_s: float | None = None


class EngineBuild(msgspec.Struct, frozen=True):
    """One run that makes an engine; times are Unix ms of Redis."""

    id: str
    asked: AskedBuild
    state: BuildState
    cancelling: bool
    """Somebody asked for its end, and its builder has not yet seen to it."""
    attempts: int
    """Claims that count; one that was given back in order does not."""
    worker: str
    """Who has it, or had it last."""
    progress: BuildProgress
    error: BuildError | None
    times: Mapping[str, int]
    """`created` and, of each state that it came to, `<state>`: the last time."""

    @classmethod
    def of(cls, build_id: str, fields: Mapping[str, str]) -> EngineBuild:
        """A build as its hash in Redis holds it."""
        error = fields.get("error")
        return cls(
            id=build_id,
            asked=msgspec.json.decode(fields["asked"], type=AskedBuild),
            state=msgspec.convert(fields["state"], BuildState),
            cancelling="cancel" in fields,
            attempts=int(fields.get("attempts", 0)),
            worker=fields.get("worker", ""),
            progress=msgspec.json.decode(fields.get("progress", "{}"), type=BuildProgress),
            error=None if not error else msgspec.json.decode(error, type=BuildError),
            times={n.removesuffix("_ms"): int(value) for n, value in fields.items() if n.endswith("_ms")},
        )

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class BuildClaim(NamedTuple):
    """A builder's fenced hold of a build."""

    build: EngineBuild
    holder: str
    """Builder and token; unlike every other holder that ever was."""


class Able(NamedTuple):
    """What a builder can take on."""

    runtimes: tuple[str, ...]
    gpu_class: str | None = None
    """Of its GPUs; None: it takes builds for any, which is for operators to know."""
    gpus: int = 0

    def fits(self, asked: AskedBuild) -> bool:
        """Whether it can do what was asked for. Emulated builds need no GPU."""
        if asked.runtime not in self.runtimes:
            return False
        if asked.runtime == "emulated" or not asked.gpus:
            return True
        return asked.gpus <= self.gpus and self.gpu_class in {None, asked.gpu_class}


class BuilderSeen(msgspec.Struct, frozen=True):
    """A builder, as it last said of itself."""

    name: str
    able: Able
    build: str
    """What it works on; empty: it looks for work."""
    age_s: float
    """Since it said so."""

    @property
    def runs(self) -> bool:
        """Whether it still does, as far as can be told."""
        return self.age_s < GONE_S


class LogLine(msgspec.Struct, frozen=True):
    """A line that a step of a build has written."""

    step: str
    text: str
