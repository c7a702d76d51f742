"""Size rules: how a model is split, and how many tokens and requests fit where. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from engine_builder.plan.findings import Finding
from engine_builder.plan.memory import GIB, WEIGHT_BYTES, Memory, memory_of, shards_embedding, weights_bytes
from engine_builder.plan.precision_rules import works_on
from engine_builder.shape import Shape
from model_registry.engine_specs import EngineSpec
from router.gpus import Gpu

MOST_TOKENS = 32_768
"""Of one step, as TensorRT-LLM's benchmark tool caps it."""
RANKS = (1, 2, 4, 8, 16)


def splits(shape: Shape, ranks: int) -> bool:
    """Whether a model's heads can be spread over so many ranks: KV heads may be there several times."""
    return shape.heads % ranks == 0 and (shape.kv_heads % ranks == 0 or ranks % shape.kv_heads == 0)


def check(spec: EngineSpec, shape: Shape, gpu: Gpu | None, draft: Shape | None = None) -> Iterator[Finding]:
    """What these rules say; what is open in the spec, and a GPU without figures, is passed over."""
    yield from _split(spec, shape, gpu)
    yield from _lengths(spec, shape)
    yield from _step(spec)
    decided = None not in (spec.precision, spec.kv_cache, spec.max_batch_size, spec.max_num_tokens)
    if decided and gpu is not None:
        yield from _memory(spec, shape, gpu, draft)


def _split(spec: EngineSpec, shape: Shape, gpu: Gpu | None) -> Iterator[Finding]:
    ranks, stages = spec.tensor_parallel or 1, spec.pipeline_parallel or 1
    possible = [str(one) for one in RANKS if splits(shape, one)]
    if shape.heads % ranks:
        yield Finding(
            "tp-heads",
            "tensor_parallel",
            f"{shape.heads} attention heads cannot be spread over {ranks} ranks",
            f"use {', '.join(possible)}",
        )
    elif not splits(shape, ranks):
        yield Finding(
            "tp-kv-heads",
            "tensor_parallel",
            f"neither of {ranks} ranks and {shape.kv_heads} KV heads divides the other",
            f"use {', '.join(possible)}",
        )
    elif ranks > shape.kv_heads:
        yield Finding(
            "kv-heads-replicated",
            "tensor_parallel",
            f"{ranks} ranks share {shape.kv_heads} KV heads: each is cached {ranks // shape.kv_heads} times",
            "fewer ranks cache more tokens for each GPU",
            "note",
        )
    if stages > shape.layers:
        yield Finding(
            "pp-layers", "pipeline_parallel", f"{stages} stages for {shape.layers} layers", "use fewer"
        )
    elif shape.layers % stages:
        yield Finding(
            "pp-layers",
            "pipeline_parallel",
            f"{shape.layers} layers in {stages} stages: the longest stage sets the pace",
            "use a number that divides the layers",
            "warning",
        )
    if gpu is not None:
        yield from _nodes(spec, gpu)


def _nodes(spec: EngineSpec, gpu: Gpu) -> Iterator[Finding]:
    ranks = spec.tensor_parallel or 1
    if spec.gpus > gpu.per_node:
        across = "tensor parallelism goes over the network, which is 9 times slower than NVLink or worse"
        within = "it needs leader mode or trtllm-llmapi-launch, one rank a GPU, and no orchestrator"
        slow = ranks > gpu.per_node and gpu.per_node > 1
        yield Finding(
            "multi-node",
            "tensor_parallel" if slow else "pipeline_parallel",
            f"{spec.gpus} GPUs are on more than one node of {gpu.per_node}: {across if slow else within}",
            f"keep tensor_parallel at most {gpu.per_node} and put stages on nodes",
            "warning",
        )
    if ranks > 2 and gpu.link_gb_per_s < 100:
        yield Finding(
            "no-nvlink",
            "tensor_parallel",
            f"{spec.gpu_class} has no NVLink: {ranks} ranks exchange activations over PCIe",
            "stages exchange far less: try pipeline_parallel",
            "warning",
        )


def _lengths(spec: EngineSpec, shape: Shape) -> Iterator[Finding]:
    if spec.max_seq_len is not None and spec.max_seq_len > shape.max_positions:
        yield Finding(
            "positions",
            "max_seq_len",
            f"{spec.max_seq_len} tokens are more than the model's {shape.max_positions} positions",
            f"use at most {shape.max_positions}",
        )
    asked = spec.workload.input_tokens + spec.workload.output_tokens
    if spec.max_seq_len is None and asked > shape.max_positions:
        yield Finding(
            "positions",
            "workload",
            f"requests of {asked} tokens are longer than the model's {shape.max_positions} positions",
            "lower workload.input_tokens or workload.output_tokens (plan: --prompt-tokens, --output-tokens)",
        )


def _step(spec: EngineSpec) -> Iterator[Finding]:
    """Tokens of one step against the requests that it computes for."""
    tokens, batch = spec.max_num_tokens, spec.max_batch_size
    if tokens is None:
        return
    if tokens > MOST_TOKENS:
        yield Finding(
            "step-tokens-many",
            "max_num_tokens",
            f"steps of {tokens} tokens take memory and make answers wait, and are no faster",
            f"use at most {MOST_TOKENS}",
            "warning",
        )
    guessed = 1 + (spec.speculative.max_draft_len if spec.speculative is not None else 0)
    if batch is not None and tokens < batch * spec.max_beam_width * guessed:
        each = (
            "" if guessed * spec.max_beam_width == 1 else f" with {guessed * spec.max_beam_width} tokens each"
        )
        yield Finding(
            "step-tokens-batch",
            "max_num_tokens",
            f"a step of {tokens} tokens cannot hold {batch} requests{each}",
            f"use at least {batch * spec.max_beam_width * guessed}, or a smaller max_batch_size",
        )
    if not spec.chunked_context and tokens < spec.workload.input_tokens:
        yield Finding(
            "step-tokens-prompt",
            "max_num_tokens",
            f"without chunked_context a prompt of {spec.workload.input_tokens} tokens must fit in one step "
            f"of {tokens}",
            f"use at least {spec.workload.input_tokens}, or switch chunked_context on",
        )


def _memory(spec: EngineSpec, shape: Shape, gpu: Gpu, draft: Shape | None) -> Iterator[Finding]:
    found = memory_of(spec, shape, gpu, draft)
    asked = spec.workload.input_tokens + spec.workload.output_tokens
    longest = spec.max_seq_len or asked
    where = f"in {spec.precision} each of {spec.gpus} x {spec.gpu_class}"
    if found.pool <= 0:
        yield Finding(
            "memory-weights",
            "precision",
            f"{where} would hold {found.weights / GIB:.1f} GiB of weights and "
            f"{(found.fixed - found.weights) / GIB:.1f} GiB of activations and buffers; it has "
            f"{found.usable / GIB:.1f} GiB, and nothing is left for a KV cache",
            _smaller(spec, shape, gpu),
        )
    elif found.requests(asked) < 1:
        yield Finding(
            "memory-kv",
            "precision",
            f"{where} would have a KV cache of {found.tokens} tokens ({found.pool / GIB:.1f} GiB), less than "
            f"one request of {asked}",
            _smaller(spec, shape, gpu),
        )
    else:
        yield from _pool(spec, found, asked, longest)


def _pool(spec: EngineSpec, found: Memory, asked: int, longest: int) -> Iterator[Finding]:
    if found.tokens < longest:
        yield Finding(
            "memory-longest",
            "max_seq_len",
            f"the KV cache would hold {found.tokens} tokens: no request of {longest} could run",
            f"use at most {found.tokens}, more GPUs, or kv_cache fp8",
        )
    at_once, batch = found.requests(asked), spec.max_batch_size or 1
    if at_once < batch:
        yield Finding(
            "memory-batch",
            "max_batch_size",
            f"the KV cache holds {at_once} requests of {asked} tokens, fewer than max_batch_size {batch}: "
            "the rest waits, or is paused under max_utilization",
            f"use {at_once}, more GPUs, or kv_cache fp8",
            "warning",
        )


def _smaller(spec: EngineSpec, shape: Shape, gpu: Gpu) -> str:
    """What would take less, in figures."""
    ranks, stages, found = spec.tensor_parallel or 1, spec.pipeline_parallel or 1, []
    assert spec.precision is not None
    sharded = shards_embedding(spec)
    if splits(shape, 2 * ranks):
        more = weights_bytes(shape, spec.precision, 2 * ranks, stages, sharded_embedding=sharded)
        found.append(f"tensor_parallel {2 * ranks} takes {more / GIB:.1f} GiB of each GPU")
    for precision in ("fp8", "nvfp4", "int4-awq"):
        if WEIGHT_BYTES[precision] < WEIGHT_BYTES[spec.precision] and works_on(precision, gpu, spec.lane):
            less = weights_bytes(shape, precision, ranks, stages, sharded_embedding=sharded)
            found.append(f"precision {precision} takes {less / GIB:.1f} GiB")
    return "; ".join(found) or "use a GPU with more memory"
