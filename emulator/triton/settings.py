"""What a model's `config.pbtxt` tells its Python code: parameters by their real names, and our own.

Parameters with the prefix `emulator_` say what a real engine folder would hold (limits fixed at
build) or what no real engine has (pacing card, fault and script files).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator.engine import Engine, EngineLimits, FaultSwitch, ModelConfig, Pacing, Weights
from emulator.engine.engine import GuideCompiler
from emulator.engine.model_folders import engine_limits
from emulator.triton.gpu_ledger import GpuLedger, leaks

_TRUE = {"true", "True", "TRUE", "1"}
_FALSE = {"false", "False", "FALSE", "0"}


class ModelSettings:
    """One model's configuration. An unset `${placeholder}` and an empty text count as not given."""

    def __init__(self, args: Mapping[str, str], also: Mapping[str, str] | None = None) -> None:
        """`also`: parameters that are said elsewhere, for those that the configuration does not give."""
        config: dict[str, Any] = json.loads(args["model_config"])
        self.name: str = args["model_name"]
        self.version: str = args["model_version"]
        self.max_batch_size: int = config["max_batch_size"]
        self.decoupled: bool = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.outputs = frozenset(tensor["name"] for tensor in config["output"])
        policy = config.get("dynamic_batching", {}).get("default_queue_policy", {})
        self.max_queue_size: int | None = policy.get("max_queue_size") or None
        own = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        self._parameters = {**(also or {}), **own}

    def text(self, key: str) -> str | None:
        """A parameter as it stands; None when it is not given."""
        value = self._parameters.get(key, "")
        return None if not value or value.startswith("${") else value

    def required(self, key: str) -> str:
        """A parameter that the model cannot do without; ValueError names it."""
        value = self.text(key)
        if value is None:
            raise ValueError(f"model {self.name} needs the parameter {key}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.text(key)
        if value is None:
            return default
        if value not in _TRUE | _FALSE:
            raise ValueError(f"model {self.name}: parameter {key} must be true or false, got {value!r}")
        return value in _TRUE

    def seconds(self, key: str, default_ms: float) -> float:
        """A parameter in milliseconds, as seconds."""
        return float(self.text(key) or default_ms) / 1e3


class GpuMemory:
    """What one model takes of its server's emulated GPU, from its loading on."""

    def __init__(self, settings: ModelSettings) -> None:
        """Raises GpuOutOfMemoryError where it does not fit; takes as long as `emulator_load_s` says."""
        self._model, self._fault_file = settings.name, settings.text("emulator_fault_file")
        mib, self._ledger = int(settings.text("emulator_gpu_mib") or 0), GpuLedger.of(os.environ)
        if self._ledger is not None:
            self._ledger.take(self._model, mib)
        time.sleep(float(settings.text("emulator_load_s") or 0))

    def give_back(self) -> None:
        """To be called once all else is gone."""
        if self._ledger is not None:
            self._ledger.give_back(self._model, leaks=leaks(self._fault_file))


def build_engine(settings: ModelSettings, model_dir: Path) -> Engine:
    """The engine that a model's parameters describe, not started yet."""
    weights = Weights.load(model_dir)
    tokenizer_dir = tokenizer_folder(settings, model_dir)
    return Engine(
        weights,
        limits_from(settings, model_dir),
        pacing=Pacing.load(settings.text("emulator_pacing") or "none"),
        faults=_fault_switch(settings),
        guides=_guides(settings, tokenizer_dir, weights.config),
        script=_script(settings, tokenizer_dir),
    )


def tokenizer_folder(settings: ModelSettings, model_dir: Path) -> Path:
    """`tokenizer_dir`, or the model's own folder: engines have no tokenizer in theirs."""
    return Path(settings.text("tokenizer_dir") or model_dir)


def _guides(settings: ModelSettings, model_dir: Path, config: ModelConfig) -> GuideCompiler | None:
    """Guided decoding where `guided_decoding_backend` is set; the engine refuses guides elsewhere."""
    backend = settings.text("guided_decoding_backend")
    if backend is None:
        return None
    if backend != "xgrammar":
        raise ValueError(f"guided_decoding_backend must be xgrammar, got {backend!r}")
    from emulator.engine.guides import Guides  # only engines with guides pay for the library

    told = settings.text("xgrammar_tokenizer_info_path")  # lies beside the tokenizer it was made of
    return Guides(model_dir if told is None else Path(told).parent, config)


def limits_from(settings: ModelSettings, model_dir: Path) -> EngineLimits:
    """Build limits from the engine's own config, or `emulator_limits` (JSON) where it states them; run-time
    limits from the real parameters."""
    own = engine_limits(model_dir) or {}
    fields: dict[str, Any] = {**own, **json.loads(settings.text("emulator_limits") or "{}")}
    built = EngineLimits(**fields)
    fields["kv_blocks"] = built.kv_blocks
    max_tokens = settings.text("max_tokens_in_paged_kv_cache")
    if max_tokens is not None:
        fields["kv_blocks"] = max(1, int(max_tokens) // built.tokens_per_block)
    policy = settings.text("batch_scheduler_policy")
    if policy is not None:
        fields["batch_scheduler_policy"] = policy
    fields["enable_kv_cache_reuse"] = settings.flag("enable_kv_cache_reuse", built.enable_kv_cache_reuse)
    if not own.get("enable_kv_cache_reuse", True):
        fields["enable_kv_cache_reuse"] = False  # built without paged context FMHA
    fields["enable_chunked_context"] = settings.flag("enable_chunked_context", False)
    cache_bytes = settings.text("lora_cache_host_memory_bytes")
    if cache_bytes is not None:
        fields["lora_cache_host_memory_bytes"] = int(cache_bytes)
    fields["max_queue_size"] = settings.max_queue_size or built.max_queue_size
    return EngineLimits(**fields)


def _script(
    settings: ModelSettings, model_dir: Path
) -> Callable[[Sequence[int]], tuple[int, ...] | None] | None:
    path = settings.text("emulator_script_file")
    if path is None:
        return None
    # Here, so that engines without a script do without a tokenizer.
    from emulator.engine.script import Script
    from emulator.engine.tokenizer import EngineTokenizer

    return Script(path, EngineTokenizer(model_dir)).answer


def _fault_switch(settings: ModelSettings) -> FaultSwitch | None:
    path = settings.text("emulator_fault_file")
    return FaultSwitch(path) if path else None
