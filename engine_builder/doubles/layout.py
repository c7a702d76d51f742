"""How TensorRT-LLM lays a Llama-shaped decoder over ranks, from Hugging Face's names and back. Pure.

Rank = pipeline stage · tensor-parallel size + place in the stage. Query, key and value, gate and up and the
head are cut by outputs, attention's output and down by inputs; layers go to stages in order and count from 0
in each. Key and value heads that are fewer than the ranks of a stage are in several of them. Matrices are
[outputs, inputs]. Names as of TensorRT-LLM 1.2's `LLaMAForCausalLM`: `mlp.fc` is the gate, `mlp.gate` is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine_builder.doubles.float_formats import Floats
from engine_builder.errors import CheckpointError
from engine_builder.shape import Shape

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""Without biases and without norms of queries and keys."""
EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
NORMS = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
"""Hugging Face's name by TensorRT-LLM's."""
MATRICES: Mapping[str, tuple[str, ...]] = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.dense": ("self_attn.o_proj",),
    "mlp.fc": ("mlp.gate_proj",),
    "mlp.gate": ("mlp.up_proj",),
    "mlp.proj": ("mlp.down_proj",),
}
"""Hugging Face's linear layers by TensorRT-LLM's, which holds them one below the other."""
_BY_INPUTS = ("attention.dense", "mlp.proj")

Read = Callable[[str], Floats]
"""A tensor by its name in Hugging Face's layout."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many ways a model is split, and how the table of embeddings is."""

    tensor: int = 1
    pipeline: int = 1
    parallel_embedding: bool = False
    """Rows of the table over a stage's ranks; else each has all of it."""

    @property
    def count(self) -> int:
        """Ranks in all."""
        return self.tensor * self.pipeline

    def layers(self, stage: int, layers: int) -> range:
        """The layers of a pipeline stage; the first stages get those that are left over."""
        each, more = divmod(layers, self.pipeline)
        first = stage * each + min(stage, more)
        return range(first, first + each + (stage < more))

    def check(self, shape: Shape) -> None:
        """Raises CheckpointError for a model that cannot be split like this."""
        if shape.architecture not in ARCHITECTURES:
            raise CheckpointError(
                f"{shape.architecture} cannot be doubled",
                f"the doubles know {' and '.join(ARCHITECTURES)}; build others where TensorRT-LLM is",
            )
        few, many = sorted((self.tensor, shape.kv_heads))
        if shape.heads % self.tensor or many % few or shape.intermediate % self.tensor:
            raise CheckpointError(
                f"tp_size {self.tensor} does not divide {shape.heads} heads, {shape.kv_heads} KV heads and "
                f"{shape.intermediate} inner columns",
                "choose a tp_size that does",
            )
        if self.pipeline > shape.layers:
            raise CheckpointError(f"pp_size {self.pipeline} is above the {shape.layers} layers", "lower it")


def split(read: Read, shape: Shape, ranks: Ranks, rank: int) -> Iterator[tuple[str, Floats]]:
    """The tensors of one rank, by TensorRT-LLM's names."""
    stage, place = divmod(rank, ranks.tensor)
    if stage == 0:
        table = read(EMBEDDING)
        yield (
            "transformer.vocab_embedding.weight",
            _rows(_padded(table, ranks.tensor), ranks.tensor, place) if ranks.parallel_embedding else table,
        )
    for number, layer in enumerate(ranks.layers(stage, shape.layers)):
        theirs, ours = f"model.layers.{layer}", f"transformer.layers.{number}"
        for name, hf_name in NORMS.items():
            yield f"{ours}.{name}.weight", read(f"{theirs}.{hf_name}.weight")
        for name, hf_names in MATRICES.items():
            parts = [read(f"{theirs}.{hf_name}.weight") for hf_name in hf_names]
            yield f"{ours}.{name}.weight", _cut(name, parts, shape, ranks.tensor, place)
    if stage == ranks.pipeline - 1:
        yield "transformer.ln_f.weight", read(FINAL_NORM)
        head = read(EMBEDDING if shape.tied_embeddings else HEAD)
        yield HEAD, _rows(_padded(head, ranks.tensor), ranks.tensor, place)


def join(parts: Sequence[Mapping[str, Floats]], shape: Shape, ranks: Ranks) -> dict[str, Floats]:
    """The whole model again, by Hugging Face's names; `parts` by rank. Raises KeyError where one lacks."""
    stages = [parts[first : first + ranks.tensor] for first in range(0, ranks.count, ranks.tensor)]
    table = "transformer.vocab_embedding.weight"
    embedding = (
        np.concatenate([part[table] for part in stages[0]])
        if ranks.parallel_embedding
        else stages[0][0][table]
    )
    found = {
        EMBEDDING: embedding[: shape.vocab],
        FINAL_NORM: stages[-1][0]["transformer.ln_f.weight"],
        HEAD: np.concatenate([part[HEAD] for part in stages[-1]])[: shape.vocab],
    }
    for stage, members in enumerate(stages):
        for number, layer in enumerate(ranks.layers(stage, shape.layers)):
            theirs, ours = f"model.layers.{layer}", f"transformer.layers.{number}"
            for name, hf_name in NORMS.items():
                found[f"{theirs}.{hf_name}.weight"] = members[0][f"{ours}.{name}.weight"]
            for name, hf_names in MATRICES.items():
                pieces = [part[f"{ours}.{name}.weight"] for part in members]
                whole = _whole(name, pieces, shape)
                found |= {f"{theirs}.{key}.weight": one for key, one in zip(hf_names, whole, strict=True)}
    return found


def inputs_of(name: str, shape: Shape, tensor: int) -> int:
    """Columns of one rank's part of a matrix, by TensorRT-LLM's name of it (`attention.dense`)."""
    if name == "attention.dense":
        return shape.heads * shape.head_dim // tensor
    return shape.intermediate // tensor if name == "mlp.proj" else shape.hidden


def _cut(name: str, parts: list[Floats], shape: Shape, tensor: int, place: int) -> Floats:
    if name in _BY_INPUTS:
        width = parts[0].shape[1] // tensor
        return parts[0][:, place * width : (place + 1) * width]
    if name != "attention.qkv":
        return _rows(parts[0], tensor, place)
    query, key, value = parts
    kept = max(1, shape.kv_heads // tensor) * shape.head_dim
    first = place * shape.kv_heads // tensor * shape.head_dim
    rows = slice(first, first + kept)
    return np.concatenate((_rows(query, tensor, place), key[rows], value[rows]))


def _whole(name: str, pieces: list[Floats], shape: Shape) -> list[Floats]:
    if name in _BY_INPUTS:
        return [np.concatenate(pieces, axis=1)]
    if name != "attention.qkv":
        return [np.concatenate(pieces)]
    tensor = len(pieces)
    queries = shape.heads // tensor * shape.head_dim
    kept = max(1, shape.kv_heads // tensor) * shape.head_dim
    own = pieces[:: max(1, tensor // shape.kv_heads)]  # without the copies
    return [
        np.concatenate([piece[:queries] for piece in pieces]),
        np.concatenate([piece[queries : queries + kept] for piece in own]),
        np.concatenate([piece[queries + kept :] for piece in own]),
    ]


def _rows(matrix: Floats, tensor: int, place: int) -> Floats:
    height = len(matrix) // tensor
    return matrix[place * height : (place + 1) * height]


def _padded(matrix: Floats, tensor: int) -> Floats:
    """With rows of zeros below, so that the vocabulary divides."""
    return np.pad(matrix, ((0, -len(matrix) % tensor), (0, 0)))
