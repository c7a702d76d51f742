"""The bare `tensorrt_llm` model as the benchmark serves it: from a real Triton, or from the stub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from bench import tokenizer
from engine_builder.repository import ModelSpec, TensorSpec, model_config, schemas

MAX_BATCH_SIZE = 4096
MODEL_FILE = Path(__file__).parent / "triton_model" / "model.py"


def spec(name: str, interval_us: int = 0) -> ModelSpec:
    """The model with TensorRT-LLM's own schema; in a real Triton, `interval_us` lies between its steps."""
    return ModelSpec(
        name,
        schemas.tensorrt_llm("1.x"),
        backend="python",
        max_batch_size=MAX_BATCH_SIZE,
        decoupled=True,
        parameters={
            "gpt_model_type": "inflight_fused_batching",
            "id_base": str(tokenizer.ID_BASE),
            "id_count": str(tokenizer.ID_COUNT),
            "tick_us": str(tokenizer.TICK_US),
            "interval_us": str(interval_us),
        },
        model_file=MODEL_FILE,
    )


def metadata(name: str) -> dict[str, Any]:
    """What `GET /v2/models/<name>` answers."""
    schema = spec(name).schema
    return {
        "name": name,
        "versions": ["1"],
        "platform": "python",
        "inputs": [_described(tensor) for tensor in schema.inputs],
        "outputs": [_described(tensor) for tensor in schema.outputs],
    }


def config(name: str) -> dict[str, Any]:
    """What `GET /v2/models/<name>/config` answers, without the defaults that Triton fills in."""
    document: dict[str, Any] = MessageToDict(model_config(spec(name)), preserving_proto_field_name=True)
    for tensor in (*document["input"], *document["output"]):
        tensor["dims"] = [int(dim) for dim in tensor["dims"]]  # protobuf's JSON writes int64 as text
    return document


def _described(tensor: TensorSpec) -> dict[str, Any]:
    # The server adds the batch dimension to what the configuration says, and calls strings bytes.
    datatype = "BYTES" if tensor.dtype == "STRING" else tensor.dtype
    return {"name": tensor.name, "datatype": datatype, "shape": [-1, *tensor.dims]}
