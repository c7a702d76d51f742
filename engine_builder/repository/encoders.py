"""Tensor tables of embedding models, as they are commonly exported to ONNX, TensorRT or TorchScript.

No vendor's template: the input names are those of Hugging Face's encoders, which the exporters keep; the
output names are those of Sentence Transformers and of the exporters.
"""

from __future__ import annotations

from typing import Literal

from engine_builder.repository.tensors import DYNAMIC, Schema, TensorSpec, one, output

EncoderKind = Literal["sentence", "tokens", "text"]
"""Token ids to one vector, token ids to a vector per token, or text to one vector."""


def encoder(kind: EncoderKind, dimensions: int, id_type: str = "INT64") -> Schema:
    """The tensors of one encoder."""
    if kind == "text":
        return Schema((one("text", "STRING", optional=False),), (output("embedding", "FP32", dimensions),))
    inputs = tuple(
        TensorSpec(name, id_type, (DYNAMIC,)) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    if kind == "sentence":
        return Schema(inputs, (output("sentence_embedding", "FP32", dimensions),))
    return Schema(inputs, (output("last_hidden_state", "FP32", DYNAMIC, dimensions),))
