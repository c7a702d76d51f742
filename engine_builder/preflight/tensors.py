"""Looks at declared tensors: those that TensorRT-LLM's models have, under the names of the right release.

An input that the backend does not know is passed over without a word, and one that is not declared is
refused by Triton: in both cases clients do not get what they ask for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2

from engine_builder.preflight.problems import Look, Problem
from engine_builder.preflight.subject import Model, Role, Subject
from engine_builder.repository import schemas
from engine_builder.repository.engine_models import dialect_of
from engine_builder.repository.schemas import Dialect
from engine_builder.repository.tensors import Schema, TensorSpec

_FLOATS = frozenset({"FP16", "BF16", "FP32"})
_FREE_TYPES = frozenset(
    {"encoder_input_features", "prompt_embedding_table", "draft_logits", "context_logits"}
    | {"generation_logits", "lora_weights"}
)
"""Tensors whose type is a placeholder of the templates; any float will do."""
_ESSENTIAL: Mapping[Role, tuple[frozenset[str], frozenset[str]]] = {
    "tensorrt_llm": (
        frozenset(
            {"input_ids", "input_lengths", "request_output_len", "end_id", "stop_words_list", "stop"}
            | {"streaming", "temperature", "runtime_top_k", "runtime_top_p", "exclude_input_in_output"}
        ),
        frozenset({"output_ids", "sequence_length"}),
    ),
    "preprocessing": (
        frozenset({"QUERY", "REQUEST_OUTPUT_LEN", "STOP_WORDS_DICT"}),
        frozenset({"INPUT_ID", "REQUEST_INPUT_LEN", "REQUEST_OUTPUT_LEN", "STOP_WORDS_IDS"}),
    ),
    "postprocessing": (frozenset({"TOKENS_BATCH", "SEQUENCE_LENGTH"}), frozenset({"OUTPUT"})),
    "ensemble": (
        frozenset({"text_input", "max_tokens", "stream", "stop_words", "temperature", "top_k", "top_p"}),
        frozenset({"text_output"}),
    ),
    "tensorrt_llm_bls": (
        frozenset({"text_input", "max_tokens", "stream", "stop_words", "temperature", "top_k", "top_p"}),
        frozenset({"text_output"}),
    ),
    "llmapi": (
        frozenset({"text_input", "streaming", "sampling_param_max_tokens"}),
        frozenset({"text_output"}),
    ),
    "vllm": (frozenset({"text_input", "stream", "sampling_parameters"}), frozenset({"text_output"})),
}
"""What serving through the gateway cannot do without, inputs and outputs."""


def table(role: Role, dialect: Dialect) -> Schema:
    """What a kind of model has."""
    match role:
        case "tensorrt_llm":
            return schemas.tensorrt_llm(dialect)
        case "preprocessing":
            return schemas.PREPROCESSING
        case "postprocessing":
            return schemas.POSTPROCESSING
        case "ensemble":
            return schemas.ensemble(dialect)
        case "tensorrt_llm_bls":
            return schemas.tensorrt_llm_bls(dialect)
        case "llmapi":
            return schemas.llmapi("newest")
    return schemas.VLLM


def find(subject: Subject) -> Iterator[Problem]:
    """Tensors that are missing, unknown, or of another type or shape than the models' own."""
    for model in subject.models.values():
        role = model.role
        completes_itself = role == "vllm" and not model.config.input
        if role is None or model.parse_error is not None or completes_itself:
            continue
        schema = table(role, _dialect(subject, model))
        needed_in, needed_out = _ESSENTIAL[role]
        yield from _side(subject, model, "input", model.config.input, schema.inputs, needed_in)
        yield from _side(subject, model, "output", model.config.output, schema.outputs, needed_out)


def logits(subject: Subject) -> Iterator[Problem]:
    """Logits of another type than the engine's."""
    built = {"float32": "FP32", "float16": "FP16"}.get(str(subject.pretrained.get("logits_dtype")))
    bare = subject.bare
    if built is None or bare is None:
        return
    for tensor in (*bare.config.input, *bare.config.output):
        if tensor.name in ("draft_logits", "context_logits", "generation_logits"):
            found = _type(tensor)
            if found != built:
                yield Problem(
                    f"{bare.name}: {tensor.name} is {found}, and the engine's logits are {built}",
                    f"set its data_type to TYPE_{built}",
                )


def _dialect(subject: Subject, model: Model) -> Dialect:
    if subject.version is not None and not (subject.emulated and subject.manifest is None):
        return dialect_of(subject.version)
    declared = {tensor.name for tensor in model.config.input}
    return "0.19" if declared & {"min_length", "random_seed"} else "1.x"


def _side(
    subject: Subject,
    model: Model,
    side: str,
    declared: Any,
    known: tuple[TensorSpec, ...],
    essential: frozenset[str],
) -> Iterator[Problem]:
    by_name = {spec.name: spec for spec in known}
    found = {tensor.name for tensor in declared}
    needed = set(by_name) if subject.manifest is not None and model.role != "llmapi" else set(essential)
    for name in sorted(needed - found):
        yield Problem(
            f"{model.name} does not declare the {side} {name}", f"declare {name} in its config.pbtxt"
        )
    for tensor in declared:
        spec = by_name.get(tensor.name)
        if spec is None:
            yield Problem(
                f"{model.name} declares the {side} {tensor.name}, which it does not have",
                _rename(tensor.name, by_name),
            )
            continue
        yield from _differs(model, side, tensor, spec)


def _rename(name: str, known: Mapping[str, TensorSpec]) -> str:
    renamed = {"min_length": "min_tokens", "random_seed": "seed"}
    other = {**renamed, **{new: old for old, new in renamed.items()}}.get(name)
    if other in known:
        return f"rename it to {other}, as this release of TensorRT-LLM calls it"
    near = difflib.get_close_matches(name, known, 1, 0.75)
    return f"rename it to {near[0]}" if near else "remove it"


def _differs(model: Model, side: str, tensor: Any, spec: TensorSpec) -> Iterator[Problem]:
    found = _type(tensor)
    allowed = _FLOATS if spec.name in _FREE_TYPES else {spec.dtype}
    if found not in allowed:
        yield Problem(
            f"{model.name}: {side} {spec.name} is {found}, not {spec.dtype}",
            f"set its data_type to TYPE_{spec.dtype}",
        )
    elif len(tensor.dims) != len(spec.dims):
        yield Problem(
            f"{model.name}: {side} {spec.name} has dims {list(tensor.dims)}, not {list(spec.dims)}",
            f"set its dims to {list(spec.dims)}",
        )


def _type(tensor: Any) -> str:
    return str(model_config_pb2.DataType.Name(tensor.data_type)).removeprefix("TYPE_")


LOOKS = (Look("tensors", find), Look("logits_type", logits))
