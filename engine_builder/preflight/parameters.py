"""Looks at the parameters of the `tensorrt_llm` model: names that it reads, values that it takes.

Source: contract sheet §1.2. The backend itself passes over names it does not know and takes its default for
a decoding mode that is none, with a line in its log at most.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import EMULATOR, Model, Subject
from engine_builder.repository.lookahead import Lookahead, sizes_for

DECODING_MODES = (
    "top_k",
    "top_p",
    "top_k_top_p",
    "beam_search",
    "medusa",
    "redrafter",
    "lookahead",
    "eagle",
)
Accepts = Callable[[str], str | None]
"""Takes a value; says what is allowed where it is not."""


def _choice(*allowed: str) -> Accepts:
    return lambda value: None if value in allowed else f"one of {', '.join(allowed)}"


def _flag(value: str) -> str | None:
    return None if value in {"True", "true", "TRUE", "1", "False", "false", "FALSE", "0"} else "true or false"


def _integer(least: int) -> Accepts:
    def accepts(value: str) -> str | None:
        fits = bool(re.fullmatch(r"-?\d+", value)) and int(value) >= least
        return None if fits else f"a whole number of at least {least}"

    return accepts


def _share(value: str) -> str | None:
    try:
        fits = 0 < float(value) <= 1
    except ValueError:
        fits = False
    return None if fits else "above 0 and at most 1"


def _pattern(pattern: str, told: str) -> Accepts:
    return lambda value: None if re.fullmatch(pattern, value) else told


def _any(value: str) -> str | None:  # noqa: ARG001
    return None


_GPUS = _pattern(r"\d+(,\d+)*(;\d+(,\d+)*)*", "numbers with commas, `;` between instances: 0,1;2,3")
KNOWN: Mapping[str, Accepts] = {
    "gpt_model_type": _choice("inflight_fused_batching", "inflight_batching", "V1", "v1"),
    "gpt_model_path": _any,
    "encoder_model_path": _any,
    "max_beam_width": _integer(1),
    "FORCE_CPU_ONLY_INPUT_TENSORS": _choice("yes", "no"),
    "batch_scheduler_policy": _choice("guaranteed_no_evict", "max_utilization"),
    "max_tokens_in_paged_kv_cache": _integer(1),
    "kv_cache_free_gpu_mem_fraction": _share,
    "cross_kv_cache_fraction": _share,
    "kv_cache_host_memory_bytes": _integer(0),
    "kv_cache_onboard_blocks": _flag,
    "enable_kv_cache_reuse": _flag,
    "max_attention_window_size": _pattern(r"\d+(,\d+)*", "numbers with commas, one for each layer in turn"),
    "sink_token_length": _integer(0),
    "enable_chunked_context": _flag,
    "exclude_input_in_output": _flag,
    "normalize_log_probs": _flag,
    "cancellation_check_period_ms": _integer(1),
    "stats_check_period_ms": _integer(1),
    "recv_poll_period_ms": _integer(0),
    "iter_stats_max_iterations": _integer(0),
    "request_stats_max_iterations": _integer(0),
    "gpu_device_ids": _GPUS,
    "participant_ids": _GPUS,
    "num_nodes": _integer(1),
    "executor_worker_path": _any,
    "decoding_mode": _choice(*DECODING_MODES),
    "medusa_choices": _any,
    "eagle_choices": _any,
    "lookahead_window_size": _integer(1),
    "lookahead_ngram_size": _integer(1),
    "lookahead_verification_set_size": _integer(1),
    "lora_cache_optimal_adapter_size": _integer(1),
    "lora_cache_max_adapter_size": _integer(1),
    "lora_cache_gpu_memory_fraction": _share,
    "lora_cache_host_memory_bytes": _integer(0),
    "lora_prefetch_dir": _any,
    "gpu_weights_percent": _share,
    "multi_block_mode": _flag,
    "enable_context_fmha_fp32_acc": _flag,
    "cuda_graph_mode": _flag,
    "cuda_graph_cache_size": _integer(0),
    "speculative_decoding_fast_logits": _flag,
    "guided_decoding_backend": _choice("xgrammar"),
    "xgrammar_tokenizer_info_path": _any,
    "tokenizer_dir": _any,
}
_NOT_READ: Mapping[str, str] = {
    "worker_path": "rename it to executor_worker_path",
    "enable_trt_overlap": "remove it: the runtime has no such switch any more",
    "max_num_sequences": "remove it: the engine's max_batch_size rules",
    "max_batch_size": "remove it: the engine's max_batch_size rules",
    "max_num_tokens": "remove it: the engine's max_num_tokens rules",
    "max_queue_size": "move it to dynamic_batching.default_queue_policy.max_queue_size",
    "max_queue_delay_microseconds": "move it to dynamic_batching",
    "max_kv_cache_length": "rename it to max_attention_window_size",
}
"""What older releases read, or users expect."""
_RENAMED_VALUES: Mapping[tuple[str, str], str] = {
    ("decoding_mode", "top_p_top_k"): "set decoding_mode to top_k_top_p",
    ("batch_scheduler_policy", "guaranteed_completion"): "set batch_scheduler_policy to guaranteed_no_evict",
}
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "preprocessing": ("add_special_tokens",),
    "postprocessing": ("skip_special_tokens",),
    "tensorrt_llm_bls": ("accumulate_tokens",),
}


def names(subject: Subject) -> Iterator[Problem]:
    """Parameters that nothing reads."""
    for model in subject.of_role("tensorrt_llm"):
        for name in sorted(model.config.parameters):
            if name in KNOWN or name.startswith(EMULATOR):
                continue
            near = difflib.get_close_matches(name, KNOWN, 1, 0.75)
            otherwise = f"rename it to {near[0]}" if near else "remove it"
            yield Problem(
                f"{model.name}: parameter {name} is not read by the backend", _NOT_READ.get(name, otherwise)
            )


def values(subject: Subject) -> Iterator[Problem]:
    """Values that the backend refuses, or passes over for its default."""
    for model in subject.models.values():
        if model.role == "tensorrt_llm":
            for name, accepts in KNOWN.items():
                if name != "decoding_mode":
                    yield from _complaint(model, name, accepts)
        for name in _FLAGS.get(model.role or "", ()):
            yield from _complaint(model, name, _flag)


def decoding_mode(subject: Subject) -> Iterator[Problem]:
    """A decoding mode that is none, lacks what it needs, or is not what the engine was built for."""
    for model in subject.of_role("tensorrt_llm"):
        wrong = list(_complaint(model, "decoding_mode", KNOWN["decoding_mode"]))
        yield from wrong
        mode = model.parameter("decoding_mode")
        if wrong or mode is None:
            continue
        width = int(_number(model.parameter("max_beam_width")) or 1)
        if mode == "beam_search" and width == 1:
            yield Problem(
                f"{model.name}: beam_search with max_beam_width 1", "set decoding_mode to top_k_top_p"
            )
        if mode.startswith("top") and width > 1:
            yield Problem(
                f"{model.name}: {mode} with max_beam_width {width}", "set max_beam_width to 1, or beam_search"
            )
        if mode in ("top_k", "top_p"):
            other = "top_p" if mode == "top_k" else "top_k"
            yield Problem(
                f"{model.name}: decoding_mode {mode} leaves clients' {other} without effect",
                "set decoding_mode to top_k_top_p",
            )
        yield from _speculative(subject, model, mode)


_BUILT: Mapping[str, str] = {
    "MEDUSA": "medusa",
    "LOOKAHEAD_DECODING": "lookahead",
    "EXPLICIT_DRAFT_TOKENS": "redrafter",
    "EAGLE": "eagle",
}
"""Decoding mode by the `speculative_decoding_mode` of a build."""


def _speculative(subject: Subject, model: Model, mode: str) -> Iterator[Problem]:
    built = str(subject.build.get("speculative_decoding_mode") or "NONE").upper()
    wanted = _BUILT.get(built)
    if subject.build and wanted != (mode if mode in _BUILT.values() else None):
        yield Problem(
            f"{model.name}: decoding_mode {mode}, and an engine that was built with "
            f"speculative_decoding_mode {built}",
            f"set decoding_mode to {wanted or 'top_k_top_p'}, or build the engine for {mode}",
        )
    if mode == "lookahead":
        yield from _lookahead(subject, model)


def _lookahead(subject: Subject, model: Model) -> Iterator[Problem]:
    names = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
    sizes = [model.parameter(name) for name in names]
    if missing := [name for name, size in zip(names, sizes, strict=True) if size is None]:
        yield Problem(f"{model.name}: lookahead without {', '.join(missing)}", "give all three sizes")
        return
    built = subject.build.get("max_draft_len")
    numbers = [int(size) for size in sizes if size is not None and size.isdigit()]
    if len(numbers) != len(names) or not isinstance(built, int) or built < 1:
        return
    asked = Lookahead(*numbers)
    if asked.draft_tokens != built:
        fitting, given = (", ".join(map(str, sizes)) for sizes in (sizes_for(built), asked))
        yield Problem(
            f"{model.name}: lookahead sizes {given} take {asked.draft_tokens} draft tokens, and the engine "
            f"was built for {built}",
            f"set window, n-gram and verification set to {fitting}, or build with "
            f"--max_draft_len {asked.draft_tokens}",
        )


def model_type(subject: Subject) -> Iterator[Problem]:
    """Static batching, whose runtime is gone."""
    for model in subject.of_role("tensorrt_llm"):
        if (model.parameter("gpt_model_type") or "").upper() == "V1":
            yield Problem(
                f"{model.name}: gpt_model_type V1 is static batching, whose runtime 0.20 dropped",
                "set gpt_model_type to inflight_fused_batching",
            )


def orchestrator(subject: Subject) -> Iterator[Problem]:
    """GPUs and participants that do not fit the engine's ranks."""
    mapping = subject.pretrained.get("mapping")
    world = mapping.get("world_size") if isinstance(mapping, dict) else None
    for model in subject.of_role("tensorrt_llm"):
        for name in ("gpu_device_ids", "participant_ids"):
            value = model.parameter(name)
            if value is None or not isinstance(world, int) or KNOWN[name](value) is not None:
                continue
            wrong = [part for part in value.split(";") if len(part.split(",")) != world]
            if wrong:
                yield Problem(
                    f"{model.name}: {name} {value} has {len(wrong[0].split(','))} where the engine has "
                    f"{world} ranks",
                    f"name {world} for each instance, with `;` between instances",
                )


def _complaint(model: Model, name: str, accepts: Accepts) -> Iterator[Problem]:
    value = model.parameter(name)
    allowed = None if value is None else accepts(value)
    if value is not None and allowed is not None:
        remedy = _RENAMED_VALUES.get((name, value), f"set {name} to {allowed}")
        yield Problem(f"{model.name}: {name} is {value!r}, which is not allowed", remedy)


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


LOOKS = (
    Look("parameter_names", names),
    Look("parameter_values", values),
    Look("gpt_model_type", model_type),
    Look("decoding_mode", decoding_mode),
    Look("gpu_device_ids", orchestrator),
)
