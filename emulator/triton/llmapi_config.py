"""What `1/model.yaml` says to the `llmapi` model, as the parameters that CPU engines go by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator.triton.plain_yaml import read_yaml

CONFIG_PATH = "LLM_CONFIG_PATH"
"""Environment variable that names another file, as in the real model."""
_FLAGS = {True: "true", False: "false"}


def parameters_of_yaml(args: Mapping[str, str]) -> dict[str, str]:
    """The parameters by name; none without such a file. Raises ValueError for one beyond the reader."""
    path = Path(args["model_repository"]) / args["model_version"] / "model.yaml"
    path = Path(os.environ.get(CONFIG_PATH) or path)
    if not path.exists():
        return {}
    config = read_yaml(path.read_text(encoding="utf-8"))
    if not config.get("model"):
        raise ValueError(f"{path} must name the checkpoint's folder as `model`")
    cache, scheduler = config.get("kv_cache_config") or {}, config.get("scheduler_config") or {}
    triton = config.get("triton_config") or {}
    found = {
        "emulator_model": str(config["model"]),
        "tokenizer_dir": config.get("tokenizer"),
        "emulator_limits": json.dumps(_limits(config, cache)),
        "enable_kv_cache_reuse": _flag(cache.get("enable_block_reuse", True)),
        "enable_chunked_context": _flag(config.get("enable_chunked_prefill", False)),
        "max_tokens_in_paged_kv_cache": cache.get("max_tokens"),
        "batch_scheduler_policy": _policy(scheduler.get("capacity_scheduler_policy")),
        "cancellation_check_period_ms": triton.get("cancellation_check_period_ms"),
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _limits(config: Mapping[str, Any], cache: Mapping[str, Any]) -> dict[str, int]:
    """By the names of `EngineLimits`, with LLM()'s own defaults."""
    batch = config.get("max_batch_size") or 2048
    limits = {"max_batch_size": batch, "max_num_tokens": max(config.get("max_num_tokens") or 8192, batch)}
    if config.get("max_seq_len"):
        limits |= {"max_seq_len": config["max_seq_len"], "max_input_len": config["max_seq_len"] - 1}
    if cache.get("tokens_per_block"):
        limits["tokens_per_block"] = cache["tokens_per_block"]
    if config.get("enable_lora"):
        limits["max_lora_rank"] = (config.get("lora_config") or {}).get("max_lora_rank", 64)
    return limits


def _flag(value: bool) -> str:
    return _FLAGS[bool(value)]


def _policy(value: str | None) -> str | None:
    return None if value is None else value.lower()
