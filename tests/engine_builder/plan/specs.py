"""Shapes and specs that planning is tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine_builder.checkpoint import Checkpoint
from engine_builder.shape import Shape
from model_registry.engine_specs import EngineSpec

EXAMPLES = Path(__file__).parents[3] / "examples" / "engines"
LLAMA_8B = Checkpoint.open(str(EXAMPLES / "configs" / "llama-3-8b"))
LLAMA_70B = Checkpoint.open(str(EXAMPLES / "configs" / "llama-3-70b"))
LLAMA_2_7B = Shape("LlamaForCausalLM", 32, 4096, 32, 32, 128, 11008, 32000, 4096)


def spec(**fields: Any) -> EngineSpec:
    """An 8B on an H100, with what is said and the rest open."""
    return EngineSpec.model_validate(
        {"name": "house", "checkpoint": LLAMA_8B.url, "gpu_class": "h100-sxm", **fields}
    )


def decided(**fields: Any) -> EngineSpec:
    """The same with nothing open."""
    settled = {
        "precision": "bf16",
        "kv_cache": "auto",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "max_batch_size": 64,
        "max_seq_len": 2560,
        "max_num_tokens": 8192,
        "fp8_context_fmha": False,
        "scheduler_policy": "guaranteed_no_evict",
    }
    return spec(**(settled | fields))
