"""Lanes: one per recognised Triton schema."""

from __future__ import annotations

from inference.errors import SchemaError
from inference.lane import TritonLane
from inference.lanes.llmapi import LlmApiLane
from inference.lanes.text import TextLane
from inference.lanes.trtllm import BareLane
from inference.lanes.vllm import VllmLane
from inference.schema import Schema


def lane_of(schema: Schema) -> TritonLane:
    """The lane that speaks `schema`. Raises SchemaError for one that no generating Triton lane speaks."""
    match schema.lane:
        case "tensorrt_llm":
            return BareLane(schema)
        case "ensemble" | "tensorrt_llm_bls":
            return TextLane(schema)
        case "llmapi":
            return LlmApiLane(schema)
        case "vllm":
            return VllmLane(schema)
    raise SchemaError(f"{schema.lane} is not a Triton lane that generates")
