"""The steps to a compiled engine: a checkpoint of TensorRT-LLM's by ranks, and then `trtllm-build`. Pure.

Weights-only and SmoothQuant formats are rounded by `convert_checkpoint.py` as it reads; those that ModelOpt
calibrates (FP8, NVFP4, AWQ, and quantized KV caches) go through `quantize.py`. How many ways a model is split
is said there and nowhere later (contract sheet §4).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine_builder.contract.precision import ACTIVATION_DTYPES, QFORMATS
from engine_builder.shape import Shape
from engine_builder.steps.heads import head_arguments, head_program
from engine_builder.steps.sizes import Sizes, build_timeout_s, calibration_timeout_s, precision
from engine_builder.steps.step import OUTPUT, Step, escaped
from engine_builder.steps.tools import BUILD, CONVERT, QUANTIZE, Tools
from model_registry.engine_specs import EngineSpec

_CONVERTED: Mapping[str, tuple[str, ...]] = {
    "bf16": (),
    "fp16": (),
    "int8-wo": ("--use_weight_only", "--weight_only_precision", "int8"),
    "int4-wo": ("--use_weight_only", "--weight_only_precision", "int4"),
    "int8-sq": ("--smoothquant", "0.5", "--per_channel", "--per_token"),
}
"""Flags of convert_checkpoint.py by precision; what is not here goes through quantize.py."""
_CALIBRATED_BY_CONVERT = ("int8-sq",)


def trt_engine_steps(
    spec: EngineSpec,
    shape: Shape,
    source: str,
    needs: tuple[str, ...],
    inputs: Mapping[str, str],
    tools: Tools,
) -> tuple[Step, ...]:
    """Convert or quantize, then compile. `source`: the checkpoint's folder, or `{fetch}`."""
    first = _first(spec, shape, source, needs, inputs, tools)
    return first, _compile(spec, shape, first.name, tools)


def _first(
    spec: EngineSpec,
    shape: Shape,
    source: str,
    needs: tuple[str, ...],
    inputs: Mapping[str, str],
    tools: Tools,
) -> Step:
    sizes = Sizes.of(spec, shape)
    heads = head_program(spec)
    quantizes = heads is None and (precision(spec) not in _CONVERTED or spec.kv_cache != "auto")
    calibrates = quantizes or precision(spec) in _CALIBRATED_BY_CONVERT
    program = QUANTIZE if quantizes else heads or CONVERT
    arguments = (*quantize_arguments(spec), *_split(spec)) if quantizes else _convert_arguments(spec)
    return Step(
        name="quantize" if quantizes else "convert",
        argv=(
            *tools.command(program, shape.architecture),
            *("--model_dir", source, "--output_dir", OUTPUT),
            *arguments,
        ),
        needs=needs,
        inputs={**inputs, **tools.inputs(spec)},
        environment=tools.environment(spec),
        expects=("config.json", *(f"rank{rank}.safetensors" for rank in range(spec.gpus))),
        timeout_s=calibration_timeout_s(spec, sizes) if calibrates else sizes.read_timeout_s,
        gpus=tools.gpus(spec) if calibrates else 0,
        disk_bytes=sizes.built,
        memory_bytes=sizes.source,
    )


def _convert_arguments(spec: EngineSpec) -> tuple[str, ...]:
    chosen, heads = precision(spec), head_program(spec) is not None
    plain = ("--dtype", ACTIVATION_DTYPES.get(chosen, "auto"), *_split(spec))
    arguments = [*(head_arguments(spec) if heads else plain), *_CONVERTED[chosen]]
    if spec.gpus > 1:
        arguments += ["--workers", str(spec.gpus)]
    if spec.tensor_parallel != 1:
        arguments.append("--use_parallel_embedding")  # else each rank has the whole table
    if chosen in _CALIBRATED_BY_CONVERT:
        arguments += _calibration(spec)[: 2 if heads else None]  # those scripts take the dataset alone
    return tuple(arguments)


def _split(spec: EngineSpec) -> tuple[str, ...]:
    return ("--tp_size", str(spec.tensor_parallel), "--pp_size", str(spec.pipeline_parallel))


def quantize_arguments(spec: EngineSpec) -> tuple[str, ...]:
    """Flags of quantize.py but for folders, ranks and the format of the export."""
    chosen = precision(spec)
    arguments = ["--dtype", ACTIVATION_DTYPES.get(chosen, "auto"), "--qformat", QFORMATS[chosen]]
    if chosen == "int4-awq":
        arguments += ["--awq_block_size", "128"]
    if spec.kv_cache not in (None, "auto"):
        arguments += ["--kv_cache_dtype", str(spec.kv_cache)]
    return (*arguments, *_calibration(spec))


def _calibration(spec: EngineSpec) -> tuple[str, ...]:
    calibration = spec.calibration
    return (
        *("--calib_dataset", escaped(calibration.dataset)),
        *("--calib_size", str(calibration.samples)),
        *("--calib_max_seq_length", str(calibration.max_tokens)),
    )


def _compile(spec: EngineSpec, shape: Shape, source: str, tools: Tools) -> Step:
    sizes = Sizes.of(spec, shape)
    return Step(
        name="compile",
        argv=(*tools.command(BUILD, shape.architecture), *build_arguments(spec, f"{{{source}}}")),
        needs=(source,),
        inputs={"gpu_class": spec.gpu_class, **tools.inputs(spec)},
        environment=tools.environment(spec),
        expects=("config.json", *(f"rank{rank}.engine" for rank in range(spec.gpus))),
        timeout_s=build_timeout_s(shape),
        gpus=tools.gpus(spec),
        disk_bytes=sizes.built,
        memory_bytes=2 * sizes.built,
    )


def build_arguments(spec: EngineSpec, source: str) -> tuple[str, ...]:
    """Flags of `trtllm-build` for a spec with nothing open."""
    arguments = [
        *("--checkpoint_dir", source, "--output_dir", OUTPUT),
        *("--max_batch_size", str(spec.max_batch_size)),
        *("--max_seq_len", str(spec.max_seq_len)),
        *("--max_num_tokens", str(spec.max_num_tokens)),
        *("--max_beam_width", str(spec.max_beam_width)),
        *("--kv_cache_type", "paged", "--tokens_per_block", str(spec.tokens_per_block)),
        *("--remove_input_padding", "enable", "--context_fmha", "enable"),
        *("--use_paged_context_fmha", _switch(spec.paged_context_fmha)),
        *("--use_fp8_context_fmha", _switch(bool(spec.fp8_context_fmha))),
        *("--gpt_attention_plugin", "auto", "--gemm_plugin", _gemm_plugin(spec)),
        *("--workers", str(spec.gpus)),
        # The cache of timings would else be written to the folder that the program runs in.
        *("--output_timing_cache", f"{OUTPUT}/model.cache"),
    ]
    if spec.gather_logits:
        arguments.append("--gather_context_logits")
    if spec.speculative is not None:
        arguments += ["--speculative_decoding_mode", spec.speculative.mode]
        arguments += ["--max_draft_len", str(spec.speculative.max_draft_len)]
    if spec.lora is not None:
        arguments += ["--lora_plugin", "auto", "--max_lora_rank", str(spec.lora.max_rank)]
        arguments += ["--lora_target_modules", *spec.lora.target_modules]
    return tuple(arguments)


def _gemm_plugin(spec: EngineSpec) -> str:
    """TensorRT's own kernels are as fast or faster for FP8; NVFP4 has kernels in the plugin alone."""
    return {"nvfp4": "nvfp4", "fp8": "disable"}.get(precision(spec), "auto")


def _switch(on: bool) -> str:
    return "enable" if on else "disable"
