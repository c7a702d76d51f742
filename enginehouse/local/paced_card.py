"""Paced card: the goodput card of a CPU engine that keeps a GPU engine's time."""

from __future__ import annotations

import datetime

from emulator.engine.api import EngineLimits
from emulator.engine.pacing import Pacing
from model_registry.cards import GoodputCard

CONTEXT_TOKENS = 512
"""Of a usual request, halfway through: what a step's line takes each request to have in the cache."""
_LEAST_STEP_S = 1e-6


def paced_card(pacing: Pacing, limits: EngineLimits, date: datetime.date) -> GoodputCard:
    """What the engine can do by its pacing, as long as the CPU keeps up."""
    base_s = max(pacing.base_ms + pacing.overhead_ms, pacing.min_step_ms) / 1e3
    each_s = pacing.per_request_us / 1e6 + CONTEXT_TOKENS * pacing.per_kv_token_ns / 1e9
    step_s = max(base_s, _LEAST_STEP_S) + each_s
    return GoodputCard(
        source="planned",
        gpu_class="emulated",
        date=date,
        about=f"Pacing {pacing.name}; {pacing.source}"[:500],
        prefill_tokens_per_s=max(1.0, pacing.prefill_tokens_per_s),
        overhead_s=step_s,
        step_s=step_s,
        step_per_request_s=each_s,
        chunk_tokens=limits.max_num_tokens,
        slots=limits.max_batch_size,
        kv_tokens=limits.kv_blocks * limits.tokens_per_block,
    )
