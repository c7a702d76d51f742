"""Packages for tests: a checkpoint with a real tokenizer, an engine folder as trtllm-build leaves it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import yaml

from emulator.triton.packaged import emulated
from engine_builder.checkpoint import Checkpoint
from engine_builder.identity import engine_digest
from engine_builder.package import Signer, package
from engine_builder.repository.model_files import from_installation
from model_registry.engine_specs import EngineSpec, Lora, Workload

CHAT_MODEL = Path(__file__).parents[2] / "emulator" / "models" / "depot-chat"
BUILT_AT = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)
SIGNER = Signer.generate()


def spec(checkpoint: Path = CHAT_MODEL, **fields: Any) -> EngineSpec:
    """A spec that leaves nothing open."""
    decided: dict[str, Any] = {
        "name": "depot",
        "model": "depot-chat",
        "checkpoint": str(checkpoint),
        "gpu_class": "h100-sxm",
        "precision": "bf16",
        "kv_cache": "auto",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "max_batch_size": 8,
        "max_seq_len": 512,
        "max_num_tokens": 512,
        "fp8_context_fmha": False,
        "scheduler_policy": "guaranteed_no_evict",
        "workload": Workload(input_tokens=256, output_tokens=128),
    }
    return EngineSpec(**{**decided, **fields})


def write_engine(folder: Path, ranks: int = 2) -> Path:
    """An engine folder in the shape of contract sheet §3.2; the ranks' files hold no engine."""
    vocab = json.loads((CHAT_MODEL / "config.json").read_text())["vocab_size"]
    config = {
        "version": "1.2.1",
        "pretrained_config": {
            "architecture": "LlamaForCausalLM",
            "dtype": "bfloat16",
            "logits_dtype": "float32",
            "vocab_size": vocab,
            "mapping": {"world_size": ranks, "tp_size": ranks, "pp_size": 1, "cp_size": 1},
            "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
        },
        "build_config": {
            "max_batch_size": 8,
            "max_seq_len": 512,
            "max_num_tokens": 512,
            "max_beam_width": 1,
            "kv_cache_type": "PAGED",
            "speculative_decoding_mode": "NONE",
            "plugin_config": {
                "gpt_attention_plugin": "auto",
                "remove_input_padding": True,
                "use_paged_context_fmha": True,
                "tokens_per_block": 32,
                "lora_plugin": "auto",
            },
        },
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for rank in range(ranks):
        (folder / f"rank{rank}.engine").write_bytes(b"engine of rank %d" % rank)
    return folder


def write_launch(folder: Path) -> Path:
    """What the step `launch` leaves, of every lane."""
    folder.mkdir(parents=True)
    arguments = {
        "max_batch_size": 8,
        "max_seq_len": 512,
        "kv_cache_config": {"free_gpu_memory_fraction": 0.9},
    }
    places = {"model": "${checkpoint}", "tokenizer": "${tokenizer}"}
    triton = {"triton_config": {"max_batch_size": 0, "decoupled": True}}
    (folder / "model.yaml").write_text(
        yaml.safe_dump({**places, "backend": "pytorch", **arguments, **triton})
    )
    (folder / "serve.yaml").write_text(yaml.safe_dump(arguments))
    (folder / "model.json").write_text(json.dumps({**places, "max_num_seqs": 8}))
    command = ["trtllm-serve", "${checkpoint}", "--tokenizer", "${tokenizer}"]
    (folder / "command.json").write_text(json.dumps([*command, "--extra_llm_api_options", "serve.yaml"]))
    return folder


def write_all_models(folder: Path) -> Path:
    """Python files where TensorRT-LLM's `all_models` has them."""
    for path in (
        "inflight_batcher_llm/preprocessing/1/model.py",
        "inflight_batcher_llm/postprocessing/1/model.py",
        "inflight_batcher_llm/tensorrt_llm_bls/1/model.py",
        "inflight_batcher_llm/tensorrt_llm_bls/1/lib/decode.py",
        "llmapi/tensorrt_llm/1/model.py",
        "llmapi/tensorrt_llm/1/helpers.py",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f'"""{path}"""\n')
    return folder


def real_package(folder: Path, **fields: Any) -> Path:
    """A package for TensorRT-LLM proper, two ranks unless told otherwise."""
    wanted = spec(**{"tensor_parallel": 2, "lora": Lora(max_rank=8), **fields})
    checkpoint = Checkpoint.open(str(CHAT_MODEL))
    outputs = {"launch": write_launch(folder / "launch")}
    if wanted.lane == "trt-engine":
        outputs = {"compile": write_engine(folder / "compile", wanted.gpus)}
    return package(
        wanted,
        checkpoint,
        outputs,
        engine_digest(wanted, checkpoint.digest(), "tensorrt-llm"),
        "tensorrt-llm",
        folder / "packages",
        SIGNER,
        steps={"compile": "c" * 64},
        finish=from_installation(write_all_models(folder / "all_models")),
        built_at=BUILT_AT,
    )


def emulated_package(folder: Path, **fields: Any) -> Path:
    """A package whose models run on CPU engines."""
    wanted = spec(**{"gpu_class": "cpu", "precision": "fp16", "lora": Lora(max_rank=8), **fields})
    checkpoint = Checkpoint.open(str(CHAT_MODEL))
    return package(
        wanted,
        checkpoint,
        {"compile": CHAT_MODEL},
        engine_digest(wanted, checkpoint.digest(), "emulated"),
        "emulated",
        folder / "packages",
        SIGNER,
        finish=emulated,
        built_at=BUILT_AT,
    )
