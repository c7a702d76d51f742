"""Encoder schemas: which tensors of a plain Triton model make it an embedding model.

No template fixes them, so they are told by what they are: `input_ids` with or without masks, or one text, in;
32-bit floats of one dimension (a vector) or two (a vector per token) out. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MASKS = ("attention_mask", "token_type_ids")
_ID_TYPES = ("INT64", "INT32")
_UNUSUAL = frozenset({"pooler_output"})
"""BERT's classifier head: of one dimension, and no sentence embedding."""
_PREFERRED = ("sentence_embedding", "embedding", "embeddings", "last_hidden_state", "token_embeddings")


@dataclass(frozen=True, slots=True)
class Encoder:
    """What was recognised."""

    takes_text: bool
    output: str
    """The output with the vectors."""
    dimensions: int | None
    """Length of a vector; None: the model's metadata leaves it open."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one tensor looks like without the dimension of the batch."""

    datatype: str
    dims: tuple[int, ...]


def encoder_of(
    inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], optional: frozenset[str]
) -> Encoder | list[str]:
    """The encoder that a model is, or what keeps it from being one; nothing when it is nothing like one."""
    texts = [name for name, tensor in inputs.items() if tensor.datatype == "BYTES"]
    if "input_ids" in inputs:
        problems = _id_problems(inputs, optional)
    elif len(texts) == 1 and set(inputs) - optional <= set(texts):
        problems = []
    else:
        return []
    found = _output_of(outputs)
    if isinstance(found, str):
        problems.append(found)
    if problems or isinstance(found, str):
        return problems
    name, width = found
    return Encoder("input_ids" not in inputs, name, width)


def _id_problems(inputs: Mapping[str, Shape], optional: frozenset[str]) -> list[str]:
    problems = []
    for name in ("input_ids", *_MASKS):
        tensor = inputs.get(name)
        if tensor is not None and tensor.datatype not in _ID_TYPES:
            problems.append(f"input {name} INT64 or INT32")
        elif tensor is not None and len(tensor.dims) != 1:
            problems.append(f"input {name} of one dimension besides the batch")
    unknown = set(inputs) - {"input_ids", *_MASKS} - optional
    return [*problems, *(f"a meaning for the required input {name}" for name in sorted(unknown))]


def _output_of(outputs: Mapping[str, Shape]) -> tuple[str, int | None] | str:
    """Name and width of the vectors, or what is missing for them."""
    for dims in (1, 2):
        fitting = {
            name: tensor
            for name, tensor in outputs.items()
            if tensor.datatype == "FP32" and len(tensor.dims) == dims and name not in _UNUSUAL
        }
        known = [name for name in _PREFERRED if name in fitting] or list(fitting)
        if known and (len(fitting) == 1 or known[0] in _PREFERRED):
            width = fitting[known[0]].dims[-1]
            return known[0], width if width > 0 else None
        if fitting:
            return f"one output that is known to hold the vectors among {', '.join(sorted(fitting))}"
    return "output FP32 of one dimension (a vector) or two (a vector per token) besides the batch"


def optional_inputs(config: Mapping[str, Any]) -> frozenset[str]:
    """Inputs that a request may leave out, by a model's configuration."""
    return frozenset(str(one["name"]) for one in config.get("input", ()) if one.get("optional"))
