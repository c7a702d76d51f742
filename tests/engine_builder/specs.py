"""Specs of engines that leave nothing open, and the steps that build them."""

from __future__ import annotations

from typing import Any

from engine_builder.checkpoint import Checkpoint
from engine_builder.doubles.programs import PROGRAMS
from engine_builder.shape import Shape
from engine_builder.steps import Step, Tools, build_steps
from model_registry.engine_specs import EngineSpec

LLAMA_8B = Shape("LlamaForCausalLM", 32, 4096, 32, 8, 128, 14336, 128256, 8192)
LLAMA_70B = Shape("LlamaForCausalLM", 80, 8192, 64, 8, 128, 28672, 128256, 8192)
DOUBLES = Tools.find("emulated")


def spec_of(**fields: Any) -> EngineSpec:
    whole: dict[str, Any] = {
        "name": "llama",
        "checkpoint": "/models/llama",
        "gpu_class": "h100-sxm",
        "precision": "bf16",
        "kv_cache": "auto",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "max_batch_size": 64,
        "max_seq_len": 4096,
        "max_num_tokens": 8192,
        "fp8_context_fmha": False,
        "scheduler_policy": "guaranteed_no_evict",
    }
    return EngineSpec(**{**whole, **fields})


def checkpoint_of(shape: Shape = LLAMA_8B, url: str = "/models/llama") -> Checkpoint:
    return Checkpoint(url, {}, shape, {"config.json": 600})


def steps_of(spec: EngineSpec, shape: Shape = LLAMA_8B, tools: Tools = DOUBLES) -> tuple[Step, ...]:
    return build_steps(spec, checkpoint_of(shape), "c0ffee", tools)


def names_of(spec: EngineSpec, tools: Tools = DOUBLES) -> list[str]:
    return [step.name for step in steps_of(spec, tools=tools)]


def flags_of(step: Step) -> tuple[str, list[str]]:
    """The program that a step runs, and its arguments."""
    at = next(number for number, word in enumerate(step.argv) if word in PROGRAMS)
    return step.argv[at], list(step.argv[at + 1 :])
