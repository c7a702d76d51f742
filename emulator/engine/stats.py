"""What the engine says of itself after a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from emulator.engine.api import EngineStats
from emulator.engine.kv_blocks import BlockPool
from emulator.engine.mailbox import Counts
from emulator.engine.scheduler import Scheduler, Work


@dataclass(slots=True)
class Totals:
    """Counted by the step thread, since the start."""

    iterations: int = 0
    output_tokens: int = 0
    cancelled: int = 0
    overruns: int = 0
    """Steps that took longer than the paced GPU would have."""


def stats_of(
    max_requests: int,
    pool: BlockPool,
    scheduler: Scheduler,
    totals: Totals,
    counts: Counts,
    work: Sequence[Work],
) -> EngineStats:
    """The state after a step that did `work`."""
    context = sum(item.generation.state.produced == 0 for item in work)
    return EngineStats(
        active_requests=len(scheduler.running) + len(scheduler.waiting),
        max_requests=max_requests,
        scheduled_requests=len(scheduler.running),
        context_requests=context,
        waiting_requests=len(scheduler.waiting),
        kv_max_blocks=pool.blocks,
        kv_free_blocks=pool.free,
        kv_used_blocks=pool.used,
        kv_tokens_per_block=pool.tokens_per_block,
        kv_reused_blocks=pool.reused_total,
        kv_fraction=pool.used / pool.blocks,
        total_context_tokens=sum(item.count for item in work if item.count > 1),
        generation_requests=len(work) - context,
        paused_requests=sum(generation.paused for generation in scheduler.waiting),
        iteration_counter=totals.iterations,
        timestamp_us=time.time_ns() // 1000,
        total_requests=counts.requests,
        total_cancelled=totals.cancelled,
        total_input_tokens=counts.input_tokens,
        total_output_tokens=totals.output_tokens,
        total_pacing_overruns=totals.overruns,
    )


def brought_up_to_date(stats: EngineStats, counts: Counts) -> EngineStats:
    """With what has arrived since the step."""
    return replace(
        stats,
        active_requests=counts.in_flight,
        waiting_requests=max(0, counts.in_flight - stats.scheduled_requests),
        total_requests=counts.requests,
        total_input_tokens=counts.input_tokens,
    )
