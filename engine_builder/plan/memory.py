"""Memory: what an engine takes of each GPU, before there is one. Pure.

Weights and KV cache follow from the model's shape; their formulas and numbers are those of TensorRT-LLM's
own benchmark tool and logs. Activations and buffers have no closed formula: TensorRT decides them when it
builds. What stands here for them was set by published logs and is an estimate: the log of the engine's
loading knows better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine_builder.shape import Shape
from model_registry.engine_specs import BuildLane, EngineSpec, Precision
from router.gpus import Gpu

GIB = 2**30
WEIGHT_BYTES: Mapping[Precision, float] = MappingProxyType(
    {
        "bf16": 2.0,
        "fp16": 2.0,
        "fp8": 1.0,
        "int8-sq": 1.0,
        "int8-wo": 1.0,
        "int4-awq": 0.5 + 2 / 128,  # a 16-bit scale for each group of 128
        "int4-wo": 0.5,
        "nvfp4": 0.5 + 1 / 16,  # an 8-bit scale for each block of 16
    }
)
"""Of a linear layer's parameter. Embedding, head and norms stay in 16 bits."""
CALIBRATED: frozenset[Precision] = frozenset({"fp8", "nvfp4", "int4-awq"})
"""Weights of compiled engines that quantize.py makes, not convert_checkpoint.py."""
KV_BYTES: Mapping[str, float] = MappingProxyType(
    {"auto": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5 + 1 / 16}
)
"""Of a cached number. Which of them a lane offers is another matter (`precision_rules`)."""
BASE_BYTES: Mapping[BuildLane, int] = MappingProxyType(
    {"trt-engine": int(0.75 * GIB), "llmapi": 2 * GIB, "trtllm-serve": 2 * GIB, "vllm": 2 * GIB}
)
"""CUDA's context, libraries and communication. The first as in NVIDIA's memory guide, where 0.77 GiB of an
80 GB GPU are not accounted for otherwise; the others hold PyTorch's CUDA graphs, too: a usual value."""
ACTIVATION_MARGIN = 1.5
"""Of what the widest place of a layer holds; logs show 0.97 (Mistral-Nemo, FP8, TP2) and 1.44 (Llama-2-7B,
FP8)."""
SLOT_LOGITS = 10
"""32-bit numbers for each word of the vocabulary that runtime and decoder keep for a request; the same log of
Llama-2-7B has 5.5 GB for 4,096 of them."""
LORA_FRACTION = 0.05
"""Of free memory, for adapters (`lora_cache_gpu_memory_fraction`)."""
MEDUSA_HEADS = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one GPU, in bytes."""

    usable: int
    weights: int
    activations: int
    buffers: int
    draft: int
    """Weights of what guesses tokens; its KV cache is in `kv_per_token`."""
    lora: int
    pool: int
    """For the KV cache; 0 or less: nothing is left."""
    kv_per_token: float
    tokens_per_block: int

    @property
    def fixed(self) -> int:
        """All but caches."""
        return self.weights + self.activations + self.buffers + self.draft

    @property
    def blocks(self) -> int:
        """Of the KV cache, whole ones."""
        return max(0, int(self.pool / (self.kv_per_token * self.tokens_per_block)))

    @property
    def tokens(self) -> int:
        """That the KV cache holds; of all GPUs together, since each has its part of every token."""
        return self.blocks * self.tokens_per_block

    def requests(self, tokens: int) -> int:
        """That fit at once, of so many tokens each: a request has whole blocks."""
        return self.blocks // math.ceil(tokens / self.tokens_per_block)


def memory_of(spec: EngineSpec, shape: Shape, gpu: Gpu, draft: Shape | None = None) -> Memory:
    """What a spec with nothing open takes of each of its GPUs."""
    assert spec.precision is not None
    assert spec.kv_cache is not None
    ranks, stages = spec.tensor_parallel or 1, spec.pipeline_parallel or 1
    weights = weights_bytes(shape, spec.precision, ranks, stages, sharded_embedding=shards_embedding(spec))
    activations = activation_bytes(shape, spec.max_num_tokens or 8192, ranks, all_logits=spec.gather_logits)
    slots = (spec.max_batch_size or 1) * spec.max_beam_width
    buffers = BASE_BYTES[spec.lane] + slots * shape.vocab * SLOT_LOGITS * 4
    guesser = draft_bytes(spec, shape, ranks, stages, draft)
    free = gpu.usable_bytes - weights - activations - buffers - guesser
    lora = int(LORA_FRACTION * max(0, free)) if spec.lora is not None else 0
    if spec.lane == "vllm":  # its fraction is of the whole GPU
        pool = free - lora - int((1 - spec.kv_fraction) * gpu.usable_bytes)
    else:
        pool = int(spec.kv_fraction * (free - lora))
    kv = kv_bytes_per_token(shape, spec.kv_cache, ranks, stages)
    if (
        draft is not None
        and spec.speculative is not None
        and spec.speculative.mode == "draft_tokens_external"
    ):
        kv += kv_bytes_per_token(draft, spec.kv_cache, ranks, stages)
    return Memory(
        usable=gpu.usable_bytes,
        weights=weights,
        activations=activations,
        buffers=buffers,
        draft=guesser,
        lora=lora,
        pool=pool,
        kv_per_token=kv,
        tokens_per_block=spec.tokens_per_block,
    )


def shards_embedding(spec: EngineSpec) -> bool:
    """Whether each rank has its part of the table alone: what quantize.py writes has it whole everywhere."""
    converted = spec.precision not in CALIBRATED and spec.kv_cache in (None, "auto")
    return spec.lane != "trt-engine" or converted


def weights_bytes(
    shape: Shape, precision: Precision, ranks: int = 1, stages: int = 1, *, sharded_embedding: bool = False
) -> int:
    """Of one GPU: the first and the last stage of a pipeline together, which no other exceeds.

    The table of embeddings is whole on every rank unless it is sharded, the head always is.
    """
    linear = shape.linear * WEIGHT_BYTES[precision] / (ranks * stages)
    embedding = shape.embedding * 2 / (ranks if sharded_embedding else 1)
    return int(linear + embedding + shape.embedding * 2 / ranks + shape.norms * 2)


def kv_bytes_per_token(shape: Shape, kv_cache: str, ranks: int = 1, stages: int = 1) -> float:
    """Of one GPU. With more ranks than KV heads each rank holds one, and heads are there several times."""
    heads = max(1, math.ceil(shape.kv_heads / ranks))
    return 2 * math.ceil(shape.layers / stages) * heads * shape.head_dim * KV_BYTES[kv_cache]


def activation_bytes(shape: Shape, tokens: int, ranks: int = 1, *, all_logits: bool = False) -> int:
    """Of a step with so many tokens, in 16 bits: residual, norm, gate, up and their product. An estimate."""
    width = shape.intermediate * shape.active_experts
    widest = 2 * shape.hidden + 3 * width / ranks
    logits = shape.vocab * 4 * tokens if all_logits else 0
    return int(ACTIVATION_MARGIN * 2 * tokens * widest) + logits


def draft_bytes(spec: EngineSpec, shape: Shape, ranks: int, stages: int, draft: Shape | None) -> int:
    """Weights of what guesses tokens, in 16 bits: a second model, or heads on the first. An estimate."""
    if spec.speculative is None or spec.speculative.mode == "lookahead_decoding":
        return 0
    if spec.speculative.mode == "draft_tokens_external":
        return 0 if draft is None else weights_bytes(draft, "bf16", ranks, stages)
    if spec.speculative.mode == "medusa":
        return int(MEDUSA_HEADS * 2 * (shape.hidden**2 + shape.embedding) / ranks)
    # EAGLE and ReDrafter: about one layer and a projection of two hidden states.
    return int(2 * (shape.attention + shape.expert + 2 * shape.hidden**2) / ranks)
