"""From a spec with nothing open to the steps that build it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engine_builder.checkpoint import Checkpoint
from engine_builder.contract.versions import LAST_ENGINE_VERSION, newer
from engine_builder.errors import SpecError
from engine_builder.identity import DECIDED
from engine_builder.shape import Shape
from engine_builder.steps.launch_files import launch_step
from engine_builder.steps.sizes import Sizes, calibration_timeout_s, precision
from engine_builder.steps.step import OUTPUT, Step, escaped
from engine_builder.steps.tools import FETCH, QUANTIZE, Tools
from engine_builder.steps.trt_engine import quantize_arguments, trt_engine_steps
from model_registry.engine_specs import EngineSpec

_LOCAL = ("file://", "local://")
_PYTORCH_EXPORTED = ("fp8", "nvfp4", "int4-awq")
LOADED_AS_IT_IS: Mapping[str, tuple[str, ...]] = {
    "llmapi": ("bf16", "fp16"),
    "trtllm-serve": ("bf16", "fp16"),
    "vllm": ("bf16", "fp16", "fp8"),
}
"""Precisions that a server makes of the checkpoint itself, by lane."""
EXPORTED: Mapping[str, tuple[str, ...]] = {
    "llmapi": _PYTORCH_EXPORTED,
    "trtllm-serve": _PYTORCH_EXPORTED,
    "vllm": ("nvfp4",),
}
"""Precisions that it loads from ModelOpt's export. Sources: "Quantization" in TensorRT-LLM's documentation
(1.0 to 1.4: FP8, FP4, AWQ and GPTQ, no INT8); `modelopt.py` in vLLM's (FP8 and NVFP4 alone)."""


def build_steps(
    spec: EngineSpec, checkpoint: Checkpoint, checkpoint_digest: str, tools: Tools
) -> tuple[Step, ...]:
    """The steps in order. Raises SpecError for a spec that leaves something open or cannot be built so, and
    BuilderError for a program that is missing.
    """
    _check(spec)
    inputs = {"checkpoint": checkpoint_digest}
    fetched = _fetch(spec, checkpoint, inputs, tools)
    needs = tuple(step.name for step in fetched)
    source = "{fetch}" if fetched else escaped(_path(checkpoint.url))
    if spec.lane == "trt-engine":
        tools.check(spec)
        return (*fetched, *trt_engine_steps(spec, checkpoint.shape, source, needs, inputs, tools))
    found = "hf_quant_config.json" in checkpoint.files or "quantization_config" in checkpoint.config
    loads = LOADED_AS_IT_IS[spec.lane]
    if found or precision(spec) in loads:
        return (launch_step(spec, (), inputs, tools, quantized=found),)
    if precision(spec) not in EXPORTED[spec.lane]:
        raise SpecError(
            f"lane {spec.lane} cannot have precision {spec.precision}",
            f"choose {', '.join((*loads, *EXPORTED[spec.lane]))}, or lane trt-engine",
        )
    tools.check(spec)
    quantize = _export(spec, checkpoint.shape, source, needs, tools, inputs)
    return (*fetched, quantize, launch_step(spec, (quantize.name,), inputs, tools, quantized=True))


def _check(spec: EngineSpec) -> None:
    left = [name for name in DECIDED if getattr(spec, name) is None]
    if left:
        raise SpecError(f"{spec.name} leaves {', '.join(left)} open", "have `plan` resolve it first")
    if spec.lane == "trt-engine" and newer(spec.version, LAST_ENGINE_VERSION):
        raise SpecError(
            f"version {spec.version} compiles no engines: TensorRT-LLM {LAST_ENGINE_VERSION} was the last",
            f"set version to {LAST_ENGINE_VERSION}, or lane to llmapi",
        )
    if spec.lane != "trt-engine" and spec.kv_cache == "int8":
        raise SpecError(
            f"kv_cache int8 is of compiled engines alone, not of lane {spec.lane}", "choose fp8 or auto"
        )
    if spec.lane != "trt-engine" and spec.speculative is not None:
        if spec.speculative.mode == "explicit_draft_tokens":
            raise SpecError(
                "speculative.mode explicit_draft_tokens is of compiled engines alone",
                "choose eagle or medusa",
            )
        if spec.lane == "vllm":
            raise SpecError(
                "speculative decoding is not set up in lane vllm",
                "leave out `speculative`, or change the lane",
            )


def _fetch(
    spec: EngineSpec, checkpoint: Checkpoint, inputs: dict[str, str], tools: Tools
) -> tuple[Step, ...]:
    """A copy of a checkpoint that is no folder here."""
    if "://" not in checkpoint.url or checkpoint.url.startswith(_LOCAL):
        return ()
    size = sum(checkpoint.files.values())
    return (
        Step(
            name="fetch",
            argv=(*tools.command(FETCH, ""), escaped(checkpoint.url), OUTPUT),
            inputs=inputs,
            expects=("config.json",),
            timeout_s=Sizes.of(spec, checkpoint.shape).read_timeout_s,
            disk_bytes=size,
        ),
    )


def _export(
    spec: EngineSpec,
    shape: Shape,
    source: str,
    needs: tuple[str, ...],
    tools: Tools,
    inputs: dict[str, str],
) -> Step:
    """ModelOpt's checkpoint in Hugging Face's layout; the LLM API splits it itself when it loads."""
    sizes = Sizes.of(spec, shape)
    return Step(
        name="quantize",
        argv=(
            *tools.command(QUANTIZE, shape.architecture),
            *("--model_dir", source, "--output_dir", OUTPUT, "--export_format", "hf"),
            *quantize_arguments(spec),
        ),
        needs=needs,
        inputs={**inputs, **tools.inputs(spec)},
        environment=tools.environment(spec),
        expects=("config.json", "hf_quant_config.json", "*.safetensors"),
        timeout_s=calibration_timeout_s(spec, sizes),
        gpus=tools.gpus(spec),
        disk_bytes=sizes.built,
        memory_bytes=sizes.source,
    )


def _path(url: str) -> str:
    for scheme in _LOCAL:
        url = url.removeprefix(scheme)
    return url
