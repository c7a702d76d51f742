"""Converting a model together with what guesses ahead for it: Medusa, EAGLE and ReDrafter. Pure.

Each has a script of its own in TensorRT-LLM's examples. The other modes need none: `lookahead_decoding`
guesses by itself, and with `draft_tokens_external` drafts come with requests, from an engine of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine_builder.contract.precision import ACTIVATION_DTYPES
from engine_builder.errors import SpecError
from engine_builder.steps.sizes import precision
from engine_builder.steps.step import escaped
from model_registry.engine_specs import EngineSpec


@dataclass(frozen=True, slots=True)
class _Script:
    """One script: where the draft checkpoint and its length go, and what it cannot do."""

    program: str
    draft: str
    length: str
    precisions: tuple[str, ...] = ("bf16", "fp16", "int8-wo", "int4-wo", "int8-sq")
    pipeline: bool = True


_SCRIPTS: Mapping[str, _Script] = {
    "medusa": _Script("medusa/convert_checkpoint.py", "--medusa_model_dir", "--max_medusa_token_len"),
    "eagle": _Script("eagle/convert_checkpoint.py", "--eagle_model_dir", "--max_draft_len"),
    "explicit_draft_tokens": _Script(
        "redrafter/convert_checkpoint.py",
        "--drafter_model_dir",
        "--redrafter_draft_len_per_beam",
        precisions=("bf16", "fp16"),
        pipeline=False,
    ),
}
"""By `speculative.mode`."""


def head_program(spec: EngineSpec) -> str | None:
    """The script that converts a spec's model with its heads; None where there are none."""
    script = None if spec.speculative is None else _SCRIPTS.get(spec.speculative.mode)
    return None if script is None else script.program


def head_arguments(spec: EngineSpec) -> tuple[str, ...]:
    """Its flags about the data type, the draft checkpoint and the split. Raises SpecError."""
    speculative = spec.speculative
    assert speculative is not None
    script, mode = _SCRIPTS[speculative.mode], speculative.mode
    if speculative.draft_checkpoint is None:
        raise SpecError(f"speculative.mode {mode} needs draft_checkpoint", "name the folder of its heads")
    if "://" in speculative.draft_checkpoint:
        raise SpecError("speculative.draft_checkpoint must be a folder", "copy it to one first")
    if precision(spec) not in script.precisions or spec.kv_cache != "auto":
        raise SpecError(
            f"speculative.mode {mode} cannot have precision {spec.precision} with kv_cache {spec.kv_cache}",
            f"choose {', '.join(script.precisions)} with kv_cache auto",
        )
    if spec.pipeline_parallel != 1 and not script.pipeline:
        raise SpecError(f"speculative.mode {mode} has no pipeline parallelism", "set pipeline_parallel to 1")
    split = ["--tp_size", str(spec.tensor_parallel)]
    if script.pipeline:
        split += ["--pp_size", str(spec.pipeline_parallel)]
    return (
        *("--dtype", ACTIVATION_DTYPES.get(precision(spec), "float16")),
        *(script.draft, escaped(speculative.draft_checkpoint)),
        *(script.length, str(speculative.max_draft_len)),
        *split,
    )
