"""Engine: an artefact that a build has published, and what is known of it. Never a process."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from model_registry.cards import GoodputCard
from model_registry.engine_specs import BuildLane, KvPrecision, Precision, Runtime
from model_registry.entities import Entity, Name

Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Field(description="a SHA-256, 64 digits of 0-9 a-f"),
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Check(_Record):
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str = ""
    """What was found."""
    remedy: str = ""
    """What to do where it did not pass."""


class PreflightRecord(_Record):
    """What preflight found, the last time."""

    passed: bool
    at: AwareDatetime
    server: str | None = None
    """URL of the model server that smoke prompts went to; None: files alone were looked at."""
    checks: tuple[Check, ...] = ()


class QualityRecord(_Record):
    """How an engine's answers compare with its baseline's."""

    passed: bool
    at: AwareDatetime
    baseline: str
    """Engine or deployment that it was compared with."""
    prompts: Annotated[int, Field(ge=1)]
    greedy_agreement: Annotated[float, Field(ge=0, le=1)]
    """Mean share of an answer's tokens up to the first that differs."""
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    baseline_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    mean_kl: Annotated[float, Field(ge=0)] | None = None
    """Of the chosen tokens' log-probabilities; None where a lane gives none."""


class Engine(Entity):
    """Immutable but for the records of what was found about it."""

    name: Name
    """`<spec>-<first digits of the digest>`."""
    spec: Name
    model: Name | None = None
    digest: Sha256
    """Of all that went in: the resolved spec, weights and tokenizer, versions, recipe."""
    lane: BuildLane
    runtime: Runtime
    version: str
    """Of TensorRT-LLM or vLLM, building and serving."""
    gpu_class: str
    gpus: Annotated[int, Field(ge=1)] = 1
    precision: Precision
    kv_cache: KvPrecision = "auto"
    url: str
    """The published folder."""
    manifest_sha256: Sha256
    """Of the signed `manifest.json` in it."""
    built_at: AwareDatetime
    card: GoodputCard | None = None
    """The plan's forecast until it was measured."""
    preflight: PreflightRecord | None = None
    quality: QualityRecord | None = None

    @property
    def routable(self) -> bool:
        """Whether deployments of it may get requests."""
        return self.preflight is not None and self.preflight.passed
