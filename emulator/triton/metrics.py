"""The metric families of the C++ model: gauges `nv_trt_llm_*`, and histograms of token counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from emulator.engine import EngineStats, PerfMetrics

Values = dict[tuple[str, str], float]

# Family name: its description and the label that tells its values apart.
_FAMILIES: Mapping[str, tuple[str, str]] = {
    "nv_trt_llm_request_metrics": ("TRT LLM request metrics", "request_type"),
    "nv_trt_llm_runtime_memory_metrics": ("TRT LLM runtime memory metrics", "memory_type"),
    "nv_trt_llm_kv_cache_block_metrics": ("TRT LLM KV cache block metrics", "kv_cache_block_type"),
    "nv_trt_llm_inflight_batcher_metrics": (
        "TRT LLM inflight_batcher-specific metrics",
        "inflight_batcher_specific_metric",
    ),
    "nv_trt_llm_general_metrics": ("General TRT LLM metrics", "general_type"),
}


# Histogram: the category of its only value.
_LENGTHS: Mapping[str, str] = {
    "nv_llm_input_token_len": "total_input_tokens",
    "nv_llm_output_token_len": "total_output_tokens",
}
_LENGTH_BUCKETS = [10.0, 50.0, 100.0, 500.0, 1000.0]


class EngineMetrics:
    """Gauges of one model on Triton's metrics port; a value is sent only when it changed."""

    def __init__(self, model: str, version: str, memory_bytes: int) -> None:
        self._labels = {"model": model, "version": version}
        self._memory_bytes = memory_bytes
        self._families = {
            name: pb_utils.MetricFamily(name=name, description=text, kind=pb_utils.MetricFamily.GAUGE)
            for name, (text, _) in _FAMILIES.items()
        }
        self._lengths = [self._histogram(name, category) for name, category in _LENGTHS.items()]
        self._gauges: dict[tuple[str, str], Any] = {}
        self._sent: Values = {}

    def publish(self, stats: EngineStats) -> None:
        """Brings the gauges up to date."""
        for key, value in values_of(stats, self._memory_bytes).items():
            if self._sent.get(key) != value:
                self._gauge(key).set(value)
                self._sent[key] = value

    def observe(self, perf: PerfMetrics) -> None:
        """Counts one answer that ended."""
        for (_, metric), tokens in zip(
            self._lengths, (perf.num_input_tokens, perf.num_output_tokens), strict=True
        ):
            metric.observe(tokens)

    def _histogram(self, name: str, category: str) -> tuple[Any, Any]:
        """The family, which lives no longer than it is referred to, and its metric."""
        kind = pb_utils.MetricFamily.HISTOGRAM
        family = pb_utils.MetricFamily(name=name, description="TRT LLM response metrics", kind=kind)
        labels = {**self._labels, "response_metric_type": category}
        return family, family.Metric(labels=labels, buckets=_LENGTH_BUCKETS)

    def _gauge(self, key: tuple[str, str]) -> Any:
        if key not in self._gauges:
            family, category = key
            labels = {**self._labels, _FAMILIES[family][1]: category}
            self._gauges[key] = self._families[family].Metric(labels=labels)
        return self._gauges[key]


def values_of(stats: EngineStats, memory_bytes: int) -> Values:
    """Every gauge by family and category. Runtime memory is the KV pool; a CPU engine has no other."""
    grouped: dict[str, dict[str, float]] = {
        "nv_trt_llm_request_metrics": {
            "active": stats.active_requests,
            "max": stats.max_requests,
            "scheduled": stats.scheduled_requests,
            "context": stats.context_requests,
            "waiting": stats.waiting_requests,
        },
        "nv_trt_llm_runtime_memory_metrics": {"cpu": memory_bytes, "gpu": 0, "pinned": 0},
        "nv_trt_llm_kv_cache_block_metrics": {
            "max": stats.kv_max_blocks,
            "free": stats.kv_free_blocks,
            "used": stats.kv_used_blocks,
            "tokens_per": stats.kv_tokens_per_block,
            "reused": stats.kv_reused_blocks,
            "fraction": stats.kv_fraction,
        },
        "nv_trt_llm_inflight_batcher_metrics": {
            "total_context_tokens": stats.total_context_tokens,
            "generation_requests": stats.generation_requests,
            "micro_batch_id": 0,
            "paused_requests": stats.paused_requests,
        },
        "nv_trt_llm_general_metrics": {
            "timestamp": stats.timestamp_us,
            "iteration_counter": stats.iteration_counter,
        },
    }
    return {(family, name): value for family, values in grouped.items() for name, value in values.items()}


class VllmMetrics:
    """The token counters of the vLLM backend."""

    def __init__(self, model: str, version: str) -> None:
        labels = {"model": model, "version": version}
        self._counters = {}
        self._sent = dict.fromkeys(_VLLM_COUNTERS, 0)
        for name, text in _VLLM_COUNTERS.items():
            family = pb_utils.MetricFamily(name=name, description=text, kind=pb_utils.MetricFamily.COUNTER)
            self._counters[name] = family, family.Metric(labels=labels)

    def publish(self, stats: EngineStats) -> None:
        """Brings the counters up to date."""
        totals = stats.total_input_tokens, stats.total_output_tokens
        for name, total in zip(_VLLM_COUNTERS, totals, strict=True):
            if total > self._sent[name]:
                self._counters[name][1].increment(total - self._sent[name])
                self._sent[name] = total


_VLLM_COUNTERS = {
    "vllm:prompt_tokens_total": "Number of prefill tokens processed.",
    "vllm:generation_tokens_total": "Number of generation tokens processed.",
}
