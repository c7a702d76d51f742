"""Knobs: everything that a profile moves together, from the policy to the queue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_registry.triton_queue import TritonQueue

QueueOrder = Literal["fcfs", "edf", "wspt"]
"""First come first served; earliest deadline first; shortest weighted work first."""


class Knobs(BaseModel):
    """What one profile sets; the built-in profiles differ in their values only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str = "product"
    """A routing policy of the catalogue (`router.policies`)."""
    policy_options: Mapping[str, float] = Field(default_factory=dict)
    spills_to: tuple[str, ...] = ("balanced", "latency", "throughput")
    """Profiles whose deployments stand in where this one has none that is ready, in this order."""
    spill_when_full: bool = True
    """They also stand in while this one's are full."""
    order: QueueOrder = "fcfs"
    """Of a tenant's requests in the gateway's queue; tenants take turns by their weights."""
    queue_limit: Annotated[int, Field(ge=0)] = 1024
    """Requests that may wait for one deployment group in one gateway process; beyond it 429."""
    max_wait_s: Annotated[float, Field(gt=0)] = 60.0
    """The longest a request waits in the queue; then 429."""
    ttft_target_s: Annotated[float, Field(gt=0)] = 2.0
    itl_target_s: Annotated[float, Field(gt=0)] = 0.05
    refuse_late: bool = False
    """Refuse at once a request whose predicted time to first token misses the target."""
    prefill_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of the engines' time: while prefill takes more, the largest prompts are refused. None: never."""
    window: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Requests dispatched to an engine at once, as a share of its slots; the rest waits here."""
    window_tolerance: Annotated[float, Field(ge=1)] = 4.0
    """By what factor an engine's time to first token may exceed that of a calm one before it is sent less."""
    hedge: bool = False
    """Ask a second endpoint when the first one has stalled before its first token."""
    cohort_wait_ms: Annotated[float, Field(ge=0, le=100)] = 100.0
    """How long requests wait at most for the one among them that computes their common prefix first; they are
    released together at its first token. 0: off."""
    cohort_prefix_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens to compute that prompts must have in common for that."""
    cohort_length_ratio: Annotated[float, Field(ge=1, le=16)] = 1.0
    """Under `wspt`, requests whose work differs by less than this factor go in the order in which they came,
    as one cohort of like length. 1: by their exact work."""
    triton: TritonQueue = TritonQueue()
    """What Triton's own queue is told, where its model repository is generated."""


BUILT_IN: Mapping[str, Knobs] = MappingProxyType(
    {
        "latency": Knobs(
            spills_to=("balanced", "throughput"),
            order="edf",
            queue_limit=256,
            max_wait_s=60.0,
            ttft_target_s=1.0,
            itl_target_s=0.03,
            window_tolerance=2.0,
            hedge=True,
            cohort_wait_ms=0.0,
        ),
        "balanced": Knobs(spills_to=("latency", "throughput")),
        "throughput": Knobs(
            spills_to=("balanced", "latency"),
            spill_when_full=False,
            order="wspt",
            queue_limit=8192,
            max_wait_s=600.0,
            ttft_target_s=30.0,
            itl_target_s=0.2,
            window=1.25,
            window_tolerance=16.0,
            triton=TritonQueue(max_queue_delay_us=2000, batch_scheduler_policy="max_utilization"),
        ),
    }
)
_CUSTOM = Knobs()
"""A custom profile begins with the knobs of `balanced`, which stands in for it first."""


def knobs_of(profile: str) -> Knobs:
    """The knobs of a profile by name."""
    return BUILT_IN.get(profile, _CUSTOM)
