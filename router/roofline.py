"""Roofline: a card from nothing but the GPU's data sheet and the model's size. Pure.

A decode step reads all weights once and each request's cached tokens; a prompt's token takes two operations
per weight. Engines reach a part of what a data sheet says. The parts here are set so that the cards shipped
with the CPU engines, made from measured kernel tables of TensorRT-LLM, are met within a third
(`tests/router/test_roofline.py`). What no model's size tells, such as slots, is a usual value.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from model_registry.cards import GoodputCard
from router.goodput import figures

Precision = Literal["bf16", "fp8"]


class Gpu(NamedTuple):
    """From NVIDIA's data sheets: dense operations, without sparsity."""

    memory_gb: float
    bandwidth_gb_per_s: float
    bf16_tflops: float
    fp8_tflops: float | None
    """None: it has no FP8 units; 8-bit weights are computed with in 16 bits."""


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "a10": Gpu(24, 600, 125, None),
        "a100-sxm-40gb": Gpu(40, 1555, 312, None),
        "a100-sxm-80gb": Gpu(80, 2039, 312, None),
        "b200-sxm": Gpu(180, 7700, 2250, 4500),
        "h100-pcie": Gpu(80, 2000, 756, 1513),
        "h100-sxm": Gpu(80, 3350, 989, 1979),
        "h200-sxm": Gpu(141, 4800, 989, 1979),
        "l4": Gpu(24, 300, 121, 242),
        "l40s": Gpu(48, 864, 362, 733),
    }
)
STEP_FIXED_S = 2e-3
"""Of every step, whatever the model: launches, sampling, layer norms."""
BANDWIDTH_PART = 0.8
BF16_PART = 0.65
FP8_PART = 0.45
REQUEST_S = 10e-6
"""Of a step, for each request, besides its cached tokens."""
OVERHEAD_S = 0.01
"""Of a first token, besides a step: network, tokenizer, the gateway."""
SLOTS = 256
"""At most; fewer where the KV cache holds fewer requests of the lengths given."""
MEMORY_PART = 0.9
"""Of the GPU's memory that weights and KV cache take together."""


class ModelSize(NamedTuple):
    """What a model's config tells."""

    parameters: float
    """That every token is computed with; of a mixture of experts, the active ones."""
    weights_bytes: float
    """Of all of them."""
    kv_bytes_per_token: float
    precision: Precision = "bf16"
    """Of the arithmetic."""


class RooflineError(ValueError):
    """No card can be made; the message names the remedy."""


def card(
    gpu_class: str, gpus: int, size: ModelSize, prompt_tokens: int, output_tokens: int, date: datetime.date
) -> GoodputCard:
    """What a replica on `gpus` of a class may do with requests of these lengths. Raises RooflineError."""
    gpu = GPUS.get(gpu_class)
    if gpu is None:
        raise RooflineError(f"no figures of GPU class {gpu_class!r}; there are {', '.join(GPUS)}")
    kv_tokens = int((MEMORY_PART * gpus * gpu.memory_gb * 1e9 - size.weights_bytes) / size.kv_bytes_per_token)
    held = kv_tokens // (prompt_tokens + output_tokens)
    if held < 1:
        needed = size.weights_bytes + (prompt_tokens + output_tokens) * size.kv_bytes_per_token
        raise RooflineError(
            f"{gpus} x {gpu_class} hold {MEMORY_PART * gpus * gpu.memory_gb:.0f} GB, weights and one request "
            f"take {needed / 1e9:.0f} GB; give more GPUs, or a smaller precision"
        )
    bandwidth = gpus * gpu.bandwidth_gb_per_s * 1e9 * BANDWIDTH_PART
    # Requests are on average half through their answers.
    each_s = REQUEST_S + (prompt_tokens + output_tokens / 2) * size.kv_bytes_per_token / bandwidth
    step_s = STEP_FIXED_S + size.weights_bytes / bandwidth + each_s
    return GoodputCard(
        source="roofline",
        gpu_class=gpu_class,
        gpus=gpus,
        date=date,
        about="From the GPU's data sheet and the model's size. Expect to be off by a third; measure.",
        prefill_tokens_per_s=figures(gpus * _flops(gpu, size.precision) / (2 * size.parameters)),
        overhead_s=figures(OVERHEAD_S + step_s),
        step_s=figures(step_s),
        step_per_request_s=figures(each_s),
        slots=min(SLOTS, held),
        kv_tokens=kv_tokens,
    )


def _flops(gpu: Gpu, precision: Precision) -> float:
    if precision == "fp8" and gpu.fp8_tflops is not None:
        return FP8_PART * gpu.fp8_tflops * 1e12
    return BF16_PART * gpu.bf16_tflops * 1e12
