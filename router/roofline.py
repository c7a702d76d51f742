"""Roofline: a card from nothing but the GPU's data sheet and the model's size. Pure.

A decode step reads all weights once and each request's cached tokens; a prompt's token takes two operations
per weight, and several GPUs exchange its activations. Engines reach a part of what a data sheet says. The
parts here are set so that the cards shipped with the CPU engines, made from measured kernel tables of
TensorRT-LLM, are met within a third (`tests/router/test_roofline.py`). What no model's size tells, such as
slots, is a usual value.
"""

from __future__ import annotations

import datetime
from typing import Literal, NamedTuple

from model_registry.cards import GoodputCard
from router.goodput import figures
from router.gpus import GPUS, Gpu

Arithmetic = Literal["bf16", "int8", "fp8", "fp4"]
STEP_FIXED_S = 2e-3
"""Of every step, whatever the model: launches, sampling, layer norms."""
BANDWIDTH_PART = 0.8
BF16_PART = 0.65
FP8_PART = 0.45
"""Of 8- and 4-bit arithmetic. For INT8 and FP4 nothing was compared: they are taken for alike."""
LINK_PART = 0.5
"""Of the link's bandwidth that all-reduces get. Set by the prefill of an 8B on 1 to 8 H100 in measured kernel
tables (aiconfigurator 0.12.0), which is met within a fifth."""
REQUEST_S = 10e-6
"""Of a step, for each request, besides its cached tokens."""
OVERHEAD_S = 0.01
"""Of a first token, besides a step: network, tokenizer, the gateway."""
SLOTS = 256
"""At most; fewer where the KV cache holds fewer requests of the lengths given."""
ABOUT = "From the GPU's data sheet and the model's size. Expect to be off by a third; measure."
MEMORY_PART = 0.9
"""Of the GPU's memory that weights and KV cache take together."""


class ModelSize(NamedTuple):
    """What a model's config tells."""

    parameters: float
    """That every token is computed with; of a mixture of experts, the active ones."""
    weights_bytes: float
    """Of all of them."""
    kv_bytes_per_token: float
    arithmetic: Arithmetic = "bf16"
    exchanged_bytes_per_token: float = 0.0
    """All activations that tensor parallelism adds up, for one token; several GPUs send most of it twice."""


class Lines(NamedTuple):
    """What a card says of time: first tokens over prompts, steps over their batch."""

    prefill_tokens_per_s: float
    overhead_s: float
    step_s: float
    step_per_request_s: float


class RooflineError(ValueError):
    """No card can be made; the message names the remedy."""


def lines(
    gpu: Gpu, gpus: int, size: ModelSize, prompt_tokens: int, output_tokens: int, stages: int = 1
) -> Lines:
    """Of a replica on `gpus`, in so many `stages` of a pipeline, for requests of these lengths.

    Stages compute prompts side by side; a token of an answer passes through all of them.
    """
    ranks = gpus // stages
    bandwidth = ranks * gpu.bandwidth_gb_per_s * 1e9 * BANDWIDTH_PART
    exchange_s = (
        size.exchanged_bytes_per_token * 2 * (ranks - 1) / ranks / (gpu.link_gb_per_s * 1e9 * LINK_PART)
    )
    prefill_s = 2 * size.parameters / (gpus * _operations_per_s(gpu, size.arithmetic)) + exchange_s / stages
    # Requests are on average half through their answers.
    read_s = (prompt_tokens + output_tokens / 2) * size.kv_bytes_per_token / bandwidth
    each_s = (REQUEST_S + read_s + exchange_s) / stages
    step_s = STEP_FIXED_S + size.weights_bytes / bandwidth + each_s
    return Lines(figures(1 / prefill_s), figures(OVERHEAD_S + step_s), figures(step_s), figures(each_s))


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
    return GoodputCard(
        source="roofline",
        gpu_class=gpu_class,
        gpus=gpus,
        date=date,
        about=ABOUT,
        **lines(gpu, gpus, size, prompt_tokens, output_tokens)._asdict(),
        slots=min(SLOTS, held),
        kv_tokens=kv_tokens,
    )


def _operations_per_s(gpu: Gpu, arithmetic: Arithmetic) -> float:
    """What is reached of the units that compute it; those without such units compute in 16 bits."""
    units = {"int8": gpu.int8_tops, "fp8": gpu.fp8_tflops, "fp4": gpu.fp4_tflops}.get(arithmetic)
    return FP8_PART * units * 1e12 if units is not None else BF16_PART * gpu.bf16_tflops * 1e12
