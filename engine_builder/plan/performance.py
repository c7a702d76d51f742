"""Performance: how fast an engine will be, asked of whatever knows, and told as a goodput card."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from engine_builder.checkpoint import Checkpoint
from engine_builder.plan.memory import WEIGHT_BYTES, Memory, kv_bytes_per_token
from engine_builder.shape import Shape
from model_registry.cards import CardSource, GoodputCard
from model_registry.engine_specs import EngineSpec, Precision
from router import roofline
from router.goodput import Ask
from router.gpus import GPUS
from router.roofline import Arithmetic, Lines, ModelSize

ARITHMETIC: Mapping[Precision, Arithmetic] = MappingProxyType(
    {"fp8": "fp8", "nvfp4": "fp4", "int8-sq": "int8"}
)
"""Weights whose activations are small, too; all others are computed with in 16 bits."""


class PerformanceModel(Protocol):
    """Says how fast an engine will be."""

    @property
    def source(self) -> CardSource:
        """What its figures are worth."""
        ...

    @property
    def tells_lanes_apart(self) -> bool:
        """Whether it knows the software, not only the GPU."""
        ...

    def about(self, spec: EngineSpec) -> str:
        """Where figures of this lane come from, in a few words."""
        ...

    def lines(self, spec: EngineSpec, checkpoint: Checkpoint, ask: Ask) -> Lines | None:
        """Of an engine with nothing open, for requests of these lengths; None: it knows nothing of it."""
        ...


class Roofline:
    """From data sheets: the same for every lane, off by a third for the engines that it was compared with."""

    source: CardSource = "roofline"
    tells_lanes_apart = False

    def about(self, spec: EngineSpec) -> str:  # noqa: ARG002 - the same for all
        """Says what it is."""
        return roofline.ABOUT

    def lines(self, spec: EngineSpec, checkpoint: Checkpoint, ask: Ask) -> Lines | None:
        """By bandwidth, arithmetic and links."""
        gpu = GPUS.get(spec.gpu_class)
        if gpu is None or spec.precision is None or spec.kv_cache is None:
            return None
        size = model_size(checkpoint.shape, spec.precision, spec.kv_cache, spec.tensor_parallel or 1)
        stages = spec.pipeline_parallel or 1
        return roofline.lines(gpu, spec.gpus, size, ask.prompt_tokens, ask.output_tokens, stages)


def model_size(shape: Shape, precision: Precision, kv_cache: str, ranks: int = 1) -> ModelSize:
    """What the roofline goes by; KV heads that several ranks hold are read several times."""
    return ModelSize(
        parameters=shape.computed,
        weights_bytes=shape.linear * WEIGHT_BYTES[precision] + 2 * (2 * shape.embedding + shape.norms),
        kv_bytes_per_token=kv_bytes_per_token(shape, kv_cache, ranks) * ranks,
        arithmetic=ARITHMETIC.get(precision, "bf16"),
        exchanged_bytes_per_token=2 * shape.layers * shape.hidden * 2,
    )


def card(model: PerformanceModel, spec: EngineSpec, memory: Memory, lines: Lines) -> GoodputCard:
    """What a model says of an engine, without a goodput yet."""
    assert spec.max_batch_size is not None
    return GoodputCard(
        source=model.source,
        gpu_class=spec.gpu_class,
        gpus=spec.gpus,
        date=datetime.datetime.now(datetime.UTC).date(),
        about=model.about(spec),
        **lines._asdict(),
        chunk_tokens=spec.max_num_tokens,
        slots=spec.max_batch_size,
        kv_tokens=memory.tokens or None,
    )
