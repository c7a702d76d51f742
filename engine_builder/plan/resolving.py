"""Resolving: a spec with nothing left open, or every reason why there is none."""

from __future__ import annotations

from engine_builder.checkpoint import Checkpoint
from engine_builder.plan.candidates import (
    DEFAULT_STEP_TOKENS,
    MOST_GPUS,
    ask_of,
    candidates,
    closed,
    longest_sequence,
    quantized_as,
    usual_precisions,
)
from engine_builder.plan.choice import for_profile
from engine_builder.plan.findings import Finding, errors, spec_error
from engine_builder.plan.legality import check
from engine_builder.plan.options import Sorted, sort
from engine_builder.plan.performance import PerformanceModel, Roofline
from engine_builder.shape import Shape
from model_registry.engine_specs import EngineSpec
from router.gpus import GPUS

UNPACED_BATCH = 64
"""Where nothing is known of the GPU: enough for an engine on the emulator."""


def resolve(
    spec: EngineSpec,
    checkpoint: Checkpoint,
    model: PerformanceModel | None = None,
    *,
    most_gpus: int = MOST_GPUS,
) -> EngineSpec:
    """What the spec leaves open is chosen for its profile and workload; what it says stays.

    By the roofline unless another model of performance is given. Raises SpecError with all findings that stop
    it, CheckpointError for a draft that cannot be read.
    """
    quantized, draft = quantized_as(checkpoint.config), draft_shape(spec)
    stopping = errors(check(spec, checkpoint.shape, quantized=quantized, draft=draft))
    if stopping:
        raise spec_error(spec.name, stopping)
    if spec.gpu_class not in GPUS:
        return _without_figures(spec, checkpoint)
    found = sort(
        candidates(spec, checkpoint, most_gpus),
        checkpoint,
        model or Roofline(),
        ask_of(spec),
        usual_precisions(spec, checkpoint),
        quantized=quantized,
        draft=draft,
    )
    chosen = for_profile(spec.profile, found.options)
    if chosen is None and found.unknown:  # the model of performance has never heard of it
        return resolve(spec, checkpoint, Roofline(), most_gpus=most_gpus)
    if chosen is None:
        raise spec_error(spec.name, nearest(found))
    return EngineSpec.model_validate(chosen.spec.model_dump())


def nearest(found: Sorted) -> list[Finding]:
    """Why the candidate that was stopped by the fewest findings was stopped; of several, by the most GPUs."""
    return min(found.refused, key=lambda one: (len(one[1]), -one[0].gpus))[1] if found.refused else []


def draft_shape(spec: EngineSpec) -> Shape | None:
    """Of the smaller model that guesses; heads have none of their own. Raises CheckpointError."""
    if spec.speculative is None or spec.speculative.mode != "draft_tokens_external":
        return None
    url = spec.speculative.draft_checkpoint
    return None if url is None else Checkpoint.open(url).shape


def _without_figures(spec: EngineSpec, checkpoint: Checkpoint) -> EngineSpec:
    """For a GPU class that the table does not have: the first candidate that is legal."""
    stopping: list[Finding] = []
    for candidate in candidates(spec, checkpoint):
        longest = longest_sequence(spec, checkpoint.shape)
        one = closed(candidate, UNPACED_BATCH, DEFAULT_STEP_TOKENS, longest)
        stopping = errors(check(one, checkpoint.shape, quantized=quantized_as(checkpoint.config)))
        if not stopping:
            return EngineSpec.model_validate(one.model_dump())
    raise spec_error(spec.name, stopping)
