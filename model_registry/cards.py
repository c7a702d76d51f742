"""Goodput cards: what one replica of a deployment can do, as figures, and who says so.

The one format for what is known of an engine's speed: forecasts begin with it, replay runs by it, a plan
writes it, scaling counts replicas by it. A card stands in a Deployment (`card:`) and goes with its endpoints.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

CardSource = Literal["measured", "planned", "roofline", "learned"]
"""Measured under load; planned from tables of kernels; computed from the GPU's data sheet; learned from live
traffic. The first is worth most, the third least."""

_Text = Annotated[str, Field(min_length=1, max_length=500)]


class Goodput(BaseModel):
    """The most that one replica does while its requests get what the targets say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_tokens: Annotated[int, Field(ge=1)]
    output_tokens: Annotated[int, Field(ge=1)]
    """Lengths of the requests that this holds for."""
    ttft_s: Annotated[float, Field(gt=0)]
    itl_s: Annotated[float, Field(gt=0)]
    """The targets: time to first token, and mean time between tokens."""
    requests_per_s: Annotated[float, Field(ge=0)]
    """Requests that meet both targets; 0: none does, however low the load."""
    tokens_per_s: Annotated[float, Field(ge=0)]
    """Their output tokens."""


class GoodputCard(BaseModel):
    """One replica's. Times are straight lines: first tokens over uncached tokens, steps over their batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: CardSource
    gpu_class: Annotated[str, Field(min_length=1, max_length=63)]
    """As in the deployment's labels: `h100-sxm`, `l40s`, `cpu`, ..."""
    gpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """That the replica takes."""
    date: datetime.date
    """When the figures were made."""
    about: _Text | None = None
    """Where they come from, in words: tool, versions, what they leave out."""
    prefill_tokens_per_s: Annotated[float, Field(ge=1)]
    overhead_s: Annotated[float, Field(ge=0)]
    """From dispatch to first token, for a prompt without tokens."""
    step_s: Annotated[float, Field(gt=0)]
    """Decode step of a batch of one."""
    step_per_request_s: Annotated[float, Field(ge=0)] = 0.0
    """What each further request adds to a step."""
    chunk_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of one step, prompts and answers together (`max_num_tokens`)."""
    slots: Annotated[int, Field(ge=1)]
    """Requests that run at once."""
    kv_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens that its KV cache holds; None: not known."""
    goodput: Goodput | None = None
    """None: not known."""

    @model_validator(mode="after")
    def _steps_take_time(self) -> Self:
        if self.step_per_request_s >= self.step_s:
            raise PydanticCustomError(
                "card_step",
                "step_per_request_s must be below step_s, which has it and the batch of one's own time in it",
            )
        return self

    @property
    def step_base_s(self) -> float:
        """What a step takes besides its requests."""
        return self.step_s - self.step_per_request_s
