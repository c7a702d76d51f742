"""CPU engines under packaged repositories: the same models, with the emulator's Python files underneath."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import yaml

from emulator.engine.api import EngineLimits
from emulator.triton.repository import MODELS, RUNTIME_LIMITS
from engine_builder.repository import InstanceGroup, ModelSpec
from engine_builder.repository.engine_models import Kind
from model_registry.engine_specs import EngineSpec

KV_TOKENS = 16_384
"""Of the KV cache: there is no GPU whose free memory would tell."""


def emulated(kind: Kind, model: ModelSpec, built: EngineSpec) -> ModelSpec:
    """An `engine_builder.repository.engine_models.Finish`: for engines of the runtime `emulated`."""
    if kind == "ensemble":
        return model
    parameters = dict(model.parameters)
    if kind in ("tensorrt_llm", "llmapi", "vllm"):
        parameters |= _engine_parameters(built, kind)
    if kind == "llmapi":
        parameters["emulator_model"] = str(yaml.safe_load(model.files["model.yaml"])["model"])
        parameters["emulator_dialect"] = "1.x"
    if kind == "vllm":
        parameters["emulator_model"] = str(json.loads(model.files["model.json"])["model"])
        parameters["emulator_task"] = "generate"
    return replace(
        model,
        backend="python",
        parameters=parameters,
        model_file=MODELS / kind / "model.py",
        instances=InstanceGroup(count=2 if kind == "tensorrt_llm_bls" else 1),  # each is a process
    )


def _engine_parameters(built: EngineSpec, kind: Kind) -> dict[str, str]:
    limits = asdict(_limits(built))
    parameters = {
        "emulator_limits": json.dumps({k: v for k, v in limits.items() if k not in RUNTIME_LIMITS}),
        "emulator_pacing": "none",
        "max_tokens_in_paged_kv_cache": str(KV_TOKENS),
    }
    if kind == "vllm":
        parameters["guided_decoding_backend"] = "xgrammar"  # vLLM always takes guides
    return parameters


def _limits(built: EngineSpec) -> EngineLimits:
    usual = EngineLimits()
    batch = built.max_batch_size or usual.max_batch_size
    longest = built.max_seq_len or usual.max_seq_len
    return EngineLimits(
        max_batch_size=batch,
        max_num_tokens=max(built.max_num_tokens or usual.max_num_tokens, batch),
        max_seq_len=longest,
        max_input_len=longest - 1,
        tokens_per_block=built.tokens_per_block,
        max_lora_rank=0 if built.lora is None else built.lora.max_rank,
    )
