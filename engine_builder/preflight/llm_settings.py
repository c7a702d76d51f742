"""Looks at `1/model.yaml` of `llmapi` models: arguments of TensorRT-LLM's `LLM()`, and `triton_config`.

Source: contract sheet §1.6 and §4.5. `LLM()` refuses arguments it does not know, after the model server has
spent its start on loading.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Model, Subject, is_unfilled
from engine_builder.repository.writer import VERSION

KNOWN = frozenset(
    {"model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code", "revision"}
    | {"tokenizer_revision", "tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size"}
    | {"gpus_per_node", "moe_tensor_parallel_size", "moe_expert_parallel_size", "moe_cluster_parallel_size"}
    | {"enable_attention_dp", "dtype", "enable_lora", "lora_config", "kv_cache_config", "load_format"}
    | {"enable_chunked_prefill", "guided_decoding_backend", "scheduler_config", "cache_transceiver_config"}
    | {"peft_cache_config", "speculative_config", "max_batch_size", "max_input_len", "max_seq_len"}
    | {"max_beam_width", "max_num_tokens", "num_postprocess_workers", "reasoning_parser", "backend"}
    | {"otlp_traces_endpoint", "return_perf_metrics", "perf_metrics_max_requests", "orchestrator_type"}
    | {"env_overrides", "cuda_graph_config", "attn_backend", "moe_config", "torch_compile_config"}
    | {"disable_overlap_scheduler", "enable_iter_perf_stats", "print_iter_log", "sampler_type"}
    | {"stream_interval", "allreduce_strategy", "garbage_collection_gen0_threshold", "triton_config"}
)
_OF_ENGINES = frozenset(
    {"build_config", "quant_config", "calib_config", "enable_build_cache", "fast_build", "workspace"}
    | {"batching_type", "normalize_log_probs", "embedding_parallel_mode"}
)
"""Arguments of the TensorRT backend, which `llmapi` models do not have since 1.0."""
_TRITON = frozenset({"max_batch_size", "decoupled", "cancellation_check_period_ms"})


def find(subject: Subject) -> Iterator[Problem]:
    """Settings that `LLM()` or the Triton model refuses, or that cannot stream."""
    for model in subject.of_role("llmapi"):
        if model.emulated and not (model.folder / VERSION / "model.yaml").is_file():
            continue
        path = model.folder / VERSION / "model.yaml"
        settings = _read(path)
        if not isinstance(settings, dict):
            yield Problem(f"{path}: {settings or 'not a map of settings'}", "write the LLM's arguments to it")
            continue
        yield from _arguments(model, settings)
        yield from _triton(model, settings.get("triton_config"))
        yield from _paths(subject, model, settings)


def _arguments(model: Model, settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in sorted(set(settings) - KNOWN):
        if name in _OF_ENGINES:
            remedy = "remove it: the PyTorch backend takes the checkpoint as it is"
        else:
            near = difflib.get_close_matches(name, KNOWN, 1, 0.75)
            remedy = f"rename it to {near[0]}" if near else "remove it"
        yield Problem(f"{model.name}/model.yaml: LLM() has no argument {name}", remedy)
    backend = settings.get("backend", "pytorch")
    if backend not in ("pytorch", "_autodeploy"):
        yield Problem(
            f"{model.name}/model.yaml: backend {backend}, which llmapi models do not have",
            "set backend: pytorch",
        )
    cache = settings.get("kv_cache_config")
    share = cache.get("free_gpu_memory_fraction", 0.9) if isinstance(cache, dict) else 0.9
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        yield Problem(
            f"{model.name}/model.yaml: kv_cache_config.free_gpu_memory_fraction is {share!r}",
            "set it above 0 and at most 1",
        )


def _triton(model: Model, triton: Any) -> Iterator[Problem]:
    if not isinstance(triton, dict):
        yield Problem(f"{model.name}/model.yaml has no triton_config", "add triton_config: {decoupled: true}")
        return
    for name in sorted(set(triton) - _TRITON):
        yield Problem(
            f"{model.name}/model.yaml: triton_config has no {name}", f"use {', '.join(sorted(_TRITON))}"
        )
    if triton.get("decoupled") is not True:
        yield Problem(
            f"{model.name}/model.yaml: triton_config.decoupled is not true, so the model cannot stream",
            "set triton_config.decoupled: true",
        )
    if triton.get("max_batch_size", 0) != model.config.max_batch_size:
        yield Problem(
            f"{model.name}: triton_config.max_batch_size {triton.get('max_batch_size', 0)}, and "
            f"{model.config.max_batch_size} in config.pbtxt",
            "give both the same value",
        )


def _paths(subject: Subject, model: Model, settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in ("model", "tokenizer"):
        value = settings.get(name)
        if value is None and name == "tokenizer":
            continue
        if not isinstance(value, str) or is_unfilled(value):
            yield Problem(
                f"{model.name}/model.yaml: {name} is {value or 'missing'}",
                f"set {name} to the checkpoint's folder",
            )
        elif value.startswith("/") and not subject.local(value).is_dir():
            yield Problem(
                f"{model.name}/model.yaml: {name}: {value} is no folder",
                "copy the checkpoint to the server (fetch with --checkpoint)",
            )


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        return error.strerror
    except yaml.YAMLError as error:
        return f"not YAML: {error}"


LOOKS = (Look("llm_settings", find),)
