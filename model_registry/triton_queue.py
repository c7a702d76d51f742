"""Triton queue: what a profile has Triton's own queue and batcher told, in a model's `config.pbtxt`.

Names and defaults are Triton's (`model_config.proto`) and TensorRT-LLM's. The gateway holds what engines have
no room for (docs/queueing.md), so these bound what comes to Triton past it, and what it joins by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

BatchSchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]


class TritonQueue(BaseModel):
    """Read when a model repository is written; a change reaches a server when its models are written anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_queue_size: Annotated[int, Field(ge=1)] | None = None
    """Requests that wait in Triton, and in the executor of a `tensorrt_llm` model; None: any number. Beyond
    it Triton refuses, and the request goes to another endpoint."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """The longest that a request waits in Triton; None: for ever."""
    timeout_action: Literal["reject", "delay"] = "reject"
    """Of a request that waited so long: refuse it, or serve it after all others."""
    allow_timeout_override: bool = False
    """Requests may ask for a shorter time."""
    priority_levels: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Requests may name a level, of which 1 goes first; None: there are none."""
    default_priority_level: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Of requests that name none. Default: the lowest."""
    preferred_batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """What the dynamic batcher of an encoder waits for; those beyond a model's `max_batch_size` are left out.
    Default: that."""
    max_queue_delay_us: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """How long it waits. Models that batch in flight are never made to wait."""
    batch_scheduler_policy: BatchSchedulerPolicy = "guaranteed_no_evict"
    """Of `tensorrt_llm` models: start a request when all of its tokens have room in the KV cache; or sooner,
    and pause one when there is none left."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.allow_timeout_override and self.timeout_s is None:
            raise PydanticCustomError(
                "triton_timeout",
                "allow_timeout_override needs timeout_s: requests may only ask for less than that",
            )
        levels, default = self.priority_levels, self.default_priority_level
        if default is not None and default > (levels or 0):
            raise PydanticCustomError(
                "triton_priority",
                "default_priority_level must be one of priority_levels, at most that number",
            )
        return self
