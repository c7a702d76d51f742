"""A profile's words on Triton's queue, as the settings of one model."""

from __future__ import annotations

from engine_builder.repository.configs import QueuePolicy
from model_registry.triton_queue import TritonQueue

SCHEDULER_POLICY = "batch_scheduler_policy"
"""The parameter of `tensorrt_llm` models."""


def batched_queue(triton: TritonQueue, max_batch_size: int) -> QueuePolicy:
    """Of a model whose requests Triton's dynamic batcher joins."""
    fitting = tuple(size for size in triton.preferred_batch_sizes if size <= max_batch_size)
    return _queue(triton, fitting or (max_batch_size,), triton.max_queue_delay_us)


def in_flight_queue(triton: TritonQueue, max_batch_size: int) -> QueuePolicy:
    """Of a `tensorrt_llm` model, which takes requests as they come: a delay would only make them late."""
    return _queue(triton, (max_batch_size,), 0)


def _queue(triton: TritonQueue, preferred: tuple[int, ...], delay_us: int) -> QueuePolicy:
    levels = triton.priority_levels or 0
    return QueuePolicy(
        preferred,
        max_queue_delay_us=delay_us,
        max_queue_size=triton.max_queue_size,
        timeout_us=round((triton.timeout_s or 0) * 1e6),
        timeout_action="REJECT" if triton.timeout_action == "reject" else "DELAY",
        allow_timeout_override=triton.allow_timeout_override,
        priority_levels=levels,
        default_priority_level=triton.default_priority_level or levels,
    )
