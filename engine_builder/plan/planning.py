"""Planning: all lanes side by side for one model, GPU class and workload. Pure but for reading a draft."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine_builder.checkpoint import Checkpoint
from engine_builder.errors import PlanError
from engine_builder.plan.candidates import (
    MOST_GPUS,
    ask_of,
    candidates,
    in_lane,
    quantized_as,
    usual_precisions,
)
from engine_builder.plan.choice import Point, for_profile, front, latency, throughput
from engine_builder.plan.findings import Finding, errors, spec_error
from engine_builder.plan.legality import check
from engine_builder.plan.options import Option, Sorted, sort
from engine_builder.plan.performance import PerformanceModel, Roofline
from engine_builder.plan.resolving import draft_shape, nearest
from engine_builder.shape import Shape
from model_registry.engine_specs import BuildLane, EngineSpec, Precision
from router.goodput import Ask
from router.gpus import GPUS

COMPARED: tuple[BuildLane, ...] = ("trt-engine", "llmapi", "vllm")
PYTORCH: tuple[BuildLane, ...] = ("llmapi", "trtllm-serve")
HEADROOM = 0.8
"""Of an engine's goodput that GPUs are counted with: forecasts know means, and requests come in bursts."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What one lane can do."""

    lane: BuildLane
    spec: EngineSpec
    """As asked, in this lane's version."""
    options: tuple[Option, ...]
    latency: Option | None
    throughput: Option | None
    chosen: Option | None
    """For the spec's profile."""
    refused: tuple[Finding, ...]
    """Why the others cannot be built, each reason once."""
    unknown: tuple[str, ...]
    """Precisions of which the model of performance has no figures."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The lanes for one question; the lane of the spec first."""

    spec: EngineSpec
    checkpoint: Checkpoint
    ask: Ask
    model: PerformanceModel
    lanes: tuple[LanePlan, ...]
    left_out: tuple[str, ...] = field(default=())

    @property
    def own(self) -> LanePlan:
        """Of the lane that the spec asks for."""
        return self.lanes[0]

    def lane(self, name: BuildLane) -> LanePlan | None:
        """None: not planned, or nothing can be built in it."""
        return next((one for one in self.lanes if one.lane == name and one.chosen is not None), None)

    @property
    def distinct(self) -> list[LanePlan]:
        """The lanes that figures tell apart: a compiled engine's are those of the PyTorch backend."""
        lanes = [one for one in self.lanes if one.chosen is not None]
        if not self.model.tells_lanes_apart:
            return lanes[:1]
        if any(one.lane in PYTORCH for one in lanes):
            return [one for one in lanes if one.lane != "trt-engine"]
        return lanes

    def name_of(self, lane: LanePlan) -> str:
        """A distinct lane's, with those that its figures stand for."""
        if not self.model.tells_lanes_apart:
            return "every lane"
        if lane.lane in PYTORCH and self.lane("trt-engine") is not None:
            return f"{lane.lane} (compiled engines were not measured)"
        return lane.lane

    def front(self, lane: LanePlan) -> list[Point]:
        """Tokens per second for a GPU against those for a user, of the usual precisions."""
        usual = [one for one in lane.options if one.usual] or list(lane.options)
        return front(usual, self.ask)


def plan(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    model: PerformanceModel | None = None,
    *,
    most_gpus: int = MOST_GPUS,
    lanes: Sequence[BuildLane] = COMPARED,
) -> Plan:
    """The best engines of the spec's lane, and of others beside it.

    Raises SpecError where the spec's own lane has none, with the reasons; PlanError for a GPU class without
    figures.
    """
    if spec.gpu_class not in GPUS:
        raise PlanError(f"no figures of GPU class {spec.gpu_class!r}", f"there are {', '.join(GPUS)}")
    wanted: PerformanceModel = model or Roofline()
    left_out = []
    found = _lanes(spec, checkpoint, wanted, most_gpus, lanes)
    if wanted.source != "roofline" and not any(lane.options for lane in found):
        left_out.append(f"No measured kernels of {spec.gpu_class} for this model: all figures are rooflines.")
        wanted = Roofline()
        found = _lanes(spec, checkpoint, wanted, most_gpus, lanes)
    if found[0].chosen is None:
        raise spec_error(spec.name, found[0].refused)
    return Plan(spec, checkpoint, ask_of(spec), wanted, found, (*left_out, *_left_out(spec, wanted, found)))


def replicas(option: Option, requests_per_s: float) -> int:
    """That a rate takes, at HEADROOM of each one's goodput. 0: not at these targets, with any number."""
    assert option.card.goodput is not None
    each = HEADROOM * option.card.goodput.requests_per_s
    return math.ceil(requests_per_s / each) if each > 0 else 0


def _lanes(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    model: PerformanceModel,
    most_gpus: int,
    lanes: Sequence[BuildLane],
) -> tuple[LanePlan, ...]:
    draft = draft_shape(spec)
    quantized = quantized_as(checkpoint.config)
    others = [lane for lane in lanes if lane != spec.lane]
    return tuple(
        _lane(in_lane(spec, lane), checkpoint, model, most_gpus, quantized, draft)
        for lane in (spec.lane, *others)
    )


def _lane(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    model: PerformanceModel,
    most_gpus: int,
    quantized: Precision | None,
    draft: Shape | None,
) -> LanePlan:
    stopping = errors(check(spec, checkpoint.shape, quantized=quantized, draft=draft))
    found = Sorted()
    if not stopping:
        found = sort(
            candidates(spec, checkpoint, most_gpus),
            checkpoint,
            model,
            ask_of(spec),
            usual_precisions(spec, checkpoint),
            quantized=quantized,
            draft=draft,
        )
    usual = [one for one in found.options if one.usual] or found.options
    refused = stopping or [finding for _, findings in found.refused for finding in findings]
    return LanePlan(
        lane=spec.lane,
        spec=spec,
        options=tuple(found.options),
        latency=latency(usual),
        throughput=throughput(usual),
        chosen=for_profile(spec.profile, found.options),
        refused=_once(refused if found.options or stopping else nearest(found)),
        unknown=tuple(dict.fromkeys(str(one.precision) for one in found.unknown)),
    )


def _once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(findings))


def _left_out(spec: EngineSpec, model: PerformanceModel, lanes: Sequence[LanePlan]) -> Iterable[str]:
    """What the figures do not know, so that nobody takes them for more."""
    yield "Times are means: percentiles, bursts and lengths that vary are not in them. Measure."
    if spec.kv_reuse:
        yield "Prefixes found in the KV cache are not counted: shared prompts make first tokens sooner."
    if spec.speculative is not None:
        yield "Guessed tokens are not counted: how many are right depends on the traffic."
    if spec.lora is not None:
        yield "Adapters' time is not counted, only their memory."
    yield "Activations and buffers are estimates; the log of an engine's loading tells them."
    if spec.precision is None:
        yield "Fewer than 8 bits, and INT8, are chosen only when named, or when nothing else fits."
    if model.tells_lanes_apart:
        unknown = {name for lane in lanes for name in lane.unknown}
        if unknown:
            yield f"The tables have no kernels for {', '.join(sorted(unknown))} here."
    else:
        yield "Measured kernel tables (pip install 'enginehouse[planner]'): without them lanes look alike."
