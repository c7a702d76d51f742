"""Model repositories whose engines run on the CPU; the schemas are those of the real models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from emulator.engine.api import EngineLimits
from emulator.engine.weights import ModelConfig
from engine_builder.repository import (
    Dialect,
    InstanceGroup,
    LlmApiDialect,
    ModelSpec,
    QueuePolicy,
    Schema,
    TensorSpec,
    ensemble_steps,
    schemas,
    write_repository,
)
from engine_builder.repository.encoders import EncoderKind, encoder
from engine_builder.repository.queues import SCHEDULER_POLICY, batched_queue, in_flight_queue
from model_registry.triton_queue import TritonQueue

MODELS = Path(__file__).parent / "models"
_QUEUE = TritonQueue()
# Limits that a real engine takes at run time, by parameters of their own.
RUNTIME_LIMITS = (
    "kv_blocks",
    "batch_scheduler_policy",
    "enable_kv_cache_reuse",
    "enable_chunked_context",
    "lora_cache_host_memory_bytes",
)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One CPU engine: the model folder it runs, its limits, and the GPU engine whose time it keeps.

    `pacing` is a card's name or path, `none` is full CPU speed. `fault_file` and `script_file` may appear
    while the server runs (see `emulator.engine.faults` and `emulator.engine.script`). `guided_decoding`
    sets the backend for it; LoRA is on where `limits.max_lora_rank` is above 0.
    """

    model_dir: Path
    limits: EngineLimits = field(default_factory=EngineLimits)
    pacing: str = "none"
    fault_file: Path | None = None
    guided_decoding: bool = False
    script_file: Path | None = None
    cancellation_check_period_ms: int = 100
    stats_check_period_ms: int = 100
    queue: TritonQueue = _QUEUE
    """Of a bare model, but for what `limits` say themselves: its `max_queue_size` and scheduler policy."""
    gpu_mib: int = 0
    """What it takes of its server's emulated GPU (see `emulator.triton.gpu_ledger`)."""
    load_s: float = 0.0
    """How long loading it takes at least."""


@dataclass(frozen=True, slots=True)
class TextModels:
    """Names of the models around one bare engine. `bls` None leaves BLS out."""

    ensemble: str = "ensemble"
    preprocessing: str = "preprocessing"
    postprocessing: str = "postprocessing"
    bls: str | None = "tensorrt_llm_bls"
    bls_instances: int = 2
    accumulate_tokens: bool = False
    add_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class TrtEngineModels:
    """One bare `tensorrt_llm` model, with text models around it when `text` is given."""

    engine: EngineSpec
    name: str = "tensorrt_llm"
    dialect: Dialect = "1.x"
    decoupled: bool = True
    text: TextModels | None = None


@dataclass(frozen=True, slots=True)
class LlmApiModels:
    """One `llmapi` model."""

    engine: EngineSpec
    name: str = "tensorrt_llm"
    dialect: LlmApiDialect = "newest"
    decoupled: bool = True


@dataclass(frozen=True, slots=True)
class VllmModels:
    """One model of the vLLM backend. `task` is what a real one would find out of its weights."""

    engine: EngineSpec
    name: str = "vllm"
    task: Literal["generate", "embed"] = "generate"


@dataclass(frozen=True, slots=True)
class EncoderModels:
    """One embedding model that lives without an engine.

    `kind`: token ids to one vector, token ids to a vector per token, or text to one vector.
    """

    model_dir: Path
    name: str = "encoder"
    kind: EncoderKind = "sentence"
    id_type: Literal["INT64", "INT32"] = "INT64"
    max_batch_size: int = 64
    max_input_len: int = 512
    pacing: str = "none"
    queue: TritonQueue = _QUEUE


@dataclass(frozen=True, slots=True)
class GpuModels:
    """The emulated GPU: the model that publishes what others take of it."""

    name: str = "emulated_gpu"


EmulatorModels = TrtEngineModels | LlmApiModels | VllmModels | EncoderModels | GpuModels


def build_emulator_repository(root: Path, models: Sequence[EmulatorModels]) -> list[str]:
    """Writes all models to `root` and returns their names, steps before the ensembles that call them."""
    specs = [spec for group in models for spec in model_specs(group)]
    write_repository(root, specs)
    return [spec.name for spec in specs]


def under_profile(models: EmulatorModels, triton: TritonQueue) -> EmulatorModels:
    """The models as a profile has their queues; those without a queue of Triton's stay as they are."""
    match models:
        case TrtEngineModels(engine=engine):
            limits = replace(
                engine.limits,
                max_queue_size=triton.max_queue_size,
                batch_scheduler_policy=triton.batch_scheduler_policy,
            )
            return replace(models, engine=replace(engine, limits=limits, queue=triton))
        case EncoderModels():
            return replace(models, queue=triton)
    return models


def model_specs(models: EmulatorModels) -> list[ModelSpec]:
    """The models of one group, as the repository writer takes them."""
    match models:
        case LlmApiModels():
            return [_llmapi(models)]
        case VllmModels():
            return [_vllm(models)]
        case EncoderModels():
            return [_encoder(models)]
        case GpuModels():
            return [_gpu(models)]
    specs = [_bare(models)]
    if models.text is not None:
        specs += _text_models(models, models.text)
    return specs


def _bare(models: TrtEngineModels) -> ModelSpec:
    engine = models.engine
    return _python_model(
        models.name,
        "tensorrt_llm",
        schemas.tensorrt_llm(models.dialect),
        max_batch_size=engine.limits.max_batch_size,
        decoupled=models.decoupled,
        queue=replace(
            in_flight_queue(engine.queue, engine.limits.max_batch_size),
            max_queue_size=engine.limits.max_queue_size,
        ),
        parameters={
            "gpt_model_type": "inflight_fused_batching",
            "gpt_model_path": str(engine.model_dir),
            "max_beam_width": "1",
            "exclude_input_in_output": "false",
            **_engine_parameters(engine),
        },
    )


def _llmapi(models: LlmApiModels) -> ModelSpec:
    parameters = {"emulator_model": str(models.engine.model_dir), **_engine_parameters(models.engine)}
    parameters["emulator_dialect"] = models.dialect
    return _python_model(
        models.name,
        "llmapi",
        schemas.llmapi(models.dialect),
        decoupled=models.decoupled,
        parameters=parameters,
    )


def _vllm(models: VllmModels) -> ModelSpec:
    engine = replace(models.engine, guided_decoding=models.task == "generate")  # vLLM always takes guides
    parameters = {"emulator_model": str(engine.model_dir), **_engine_parameters(engine)}
    parameters["emulator_task"] = models.task
    return _python_model(models.name, "vllm", schemas.VLLM, decoupled=True, parameters=parameters)


def _encoder(models: EncoderModels) -> ModelSpec:
    dimensions = ModelConfig.load(models.model_dir).hidden_size
    return _python_model(
        models.name,
        "encoder",
        encoder(models.kind, dimensions, models.id_type),
        max_batch_size=models.max_batch_size,
        queue=batched_queue(models.queue, models.max_batch_size),
        parameters={
            "emulator_model": str(models.model_dir),
            "emulator_kind": models.kind,
            "emulator_max_input_len": str(models.max_input_len),
            "emulator_pacing": models.pacing,
        },
    )


def _gpu(models: GpuModels) -> ModelSpec:
    figures = TensorSpec("memory_mib", "INT32", (2,))
    schema = Schema((TensorSpec("look", "BOOL", (1,)),), (figures,))
    return _python_model(models.name, "gpu", schema, parameters={})


def _text_models(models: TrtEngineModels, text: TextModels) -> list[ModelSpec]:
    batch = models.engine.limits.max_batch_size
    tokenizer = {"tokenizer_dir": str(models.engine.model_dir)}
    before = {**tokenizer, "add_special_tokens": _flag(text.add_special_tokens)}
    after = {**tokenizer, "skip_special_tokens": "true"}
    steps = ensemble_steps(
        preprocessing=text.preprocessing,
        tensorrt_llm=models.name,
        postprocessing=text.postprocessing,
        dialect=models.dialect,
    )
    specs = [
        _python_model(
            text.preprocessing,
            "preprocessing",
            schemas.PREPROCESSING,
            max_batch_size=batch,
            parameters=before,
        ),
        _python_model(
            text.postprocessing,
            "postprocessing",
            schemas.POSTPROCESSING,
            max_batch_size=batch,
            parameters=after,
        ),
        ModelSpec(text.ensemble, schemas.ensemble(models.dialect), max_batch_size=batch, steps=steps),
    ]
    return specs if text.bls is None else [*specs, _bls(models, text, text.bls)]


def _bls(models: TrtEngineModels, text: TextModels, name: str) -> ModelSpec:
    spec = _python_model(
        name,
        "tensorrt_llm_bls",
        schemas.tensorrt_llm_bls(models.dialect),
        max_batch_size=models.engine.limits.max_batch_size,
        decoupled=models.decoupled,
        parameters={
            "accumulate_tokens": _flag(text.accumulate_tokens),
            "tensorrt_llm_model_name": models.name,
            "preprocessing_model_name": text.preprocessing,
            "postprocessing_model_name": text.postprocessing,
        },
    )
    return replace(spec, instances=InstanceGroup(count=text.bls_instances))


def _python_model(
    name: str,
    kind: str,
    schema: Schema,
    *,
    max_batch_size: int = 0,
    decoupled: bool = False,
    queue: QueuePolicy | None = None,
    parameters: dict[str, str],
) -> ModelSpec:
    return ModelSpec(
        name=name,
        schema=schema,
        backend="python",
        max_batch_size=max_batch_size,
        decoupled=decoupled,
        parameters=parameters,
        queue=queue,
        model_file=MODELS / kind / "model.py",
    )


def _engine_parameters(engine: EngineSpec) -> dict[str, str]:
    limits = engine.limits
    built = {key: value for key, value in asdict(limits).items() if key not in RUNTIME_LIMITS}
    parameters = {
        SCHEDULER_POLICY: limits.batch_scheduler_policy,
        "max_tokens_in_paged_kv_cache": str(limits.kv_blocks * limits.tokens_per_block),
        "enable_kv_cache_reuse": _flag(limits.enable_kv_cache_reuse),
        "enable_chunked_context": _flag(limits.enable_chunked_context),
        "cancellation_check_period_ms": str(engine.cancellation_check_period_ms),
        "stats_check_period_ms": str(engine.stats_check_period_ms),
        "emulator_limits": json.dumps(built),
        "emulator_pacing": engine.pacing,
    }
    if engine.guided_decoding:
        parameters["guided_decoding_backend"] = "xgrammar"
    if limits.max_lora_rank:
        parameters["lora_cache_max_adapter_size"] = str(limits.max_lora_rank)
        parameters["lora_cache_host_memory_bytes"] = str(limits.lora_cache_host_memory_bytes)
    if engine.gpu_mib:
        parameters["emulator_gpu_mib"] = str(engine.gpu_mib)
    if engine.load_s:
        parameters["emulator_load_s"] = str(engine.load_s)
    if engine.fault_file is not None:
        parameters["emulator_fault_file"] = str(engine.fault_file)
    if engine.script_file is not None:
        parameters["emulator_script_file"] = str(engine.script_file)
    return parameters


def _flag(value: bool) -> str:
    return "true" if value else "false"
