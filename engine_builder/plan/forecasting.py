"""The forecast of one decided engine, which goes with it until it was measured."""

from __future__ import annotations

from engine_builder.checkpoint import Checkpoint
from engine_builder.plan.candidates import ask_of
from engine_builder.plan.memory import memory_of
from engine_builder.plan.performance import PerformanceModel, Roofline, card
from engine_builder.plan.resolving import draft_shape
from model_registry.cards import GoodputCard
from model_registry.engine_specs import EngineSpec
from router.goodput import forecast
from router.gpus import GPUS


def forecast_card(
    spec: EngineSpec, checkpoint: Checkpoint, model: PerformanceModel | None = None
) -> GoodputCard | None:
    """What the engine is expected to do at its workload; None for a GPU class that nothing is known of.

    Raises CheckpointError for a draft that cannot be read.
    """
    ask, known = ask_of(spec), model or Roofline()
    gpu = GPUS.get(spec.gpu_class)
    lines = known.lines(spec, checkpoint, ask)
    if gpu is None or lines is None:
        return None
    found = card(known, spec, memory_of(spec, checkpoint.shape, gpu, draft_shape(spec)), lines)
    return found.model_copy(update={"goodput": forecast(found, ask)})
