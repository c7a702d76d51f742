"""Schemas of each lane by the names of the contract, and what a reader makes of a server's responses."""

from __future__ import annotations

import json
from typing import Any

from inference.lanes import lane_of
from inference.request import InferenceRequest, Sampling, Usage
from inference.schema import Schema, Tensor
from tests.inference.recording import RecordingSink

BARE_INPUTS = {
    "input_ids": "INT32",
    "input_lengths": "INT32",
    "request_output_len": "INT32",
    "end_id": "INT32",
    "pad_id": "INT32",
    "stop_words_list": "INT32",
    "temperature": "FP32",
    "runtime_top_k": "INT32",
    "runtime_top_p": "FP32",
    "seed": "UINT64",
    "min_tokens": "INT32",
    "repetition_penalty": "FP32",
    "return_log_probs": "BOOL",
    "return_perf_metrics": "BOOL",
    "exclude_input_in_output": "BOOL",
    "streaming": "BOOL",
}
BARE_OUTPUTS = {"output_ids": "INT32", "sequence_length": "INT32", "output_log_probs": "FP32"}
PERF = {"last_token_time_ns": "INT64", "kv_cache_reused_blocks": "INT32"}


def schema(lane: Any, inputs: dict[str, str], outputs: dict[str, str], **facts: Any) -> Schema:
    tensors = [{name: Tensor(kind, (-1, 1)) for name, kind in side.items()} for side in (inputs, outputs)]
    return Schema(lane, "m", *tensors, decoupled=True, max_batch_size=8, **facts)


BARE = schema("tensorrt_llm", BARE_INPUTS, {**BARE_OUTPUTS, **PERF}, tokens_per_block=32)
LLMAPI = schema(
    "llmapi",
    {
        "text_input": "BYTES",
        "streaming": "BOOL",
        "return_finish_reason": "BOOL",
        "sampling_param_max_tokens": "INT32",
        "sampling_param_temperature": "FP32",
        "sampling_param_top_p": "FP32",
        "sampling_param_seed": "UINT64",
        "sampling_param_stop": "BYTES",
        "sampling_param_exclude_input_from_output": "BOOL",
    },
    {"text_output": "BYTES", "finish_reason": "BYTES"},
    text_mode="cumulative",
    tokens_per_block=32,
)
TEXT_INPUTS = {
    "text_input": "BYTES",
    "max_tokens": "INT32",
    "stop_words": "BYTES",
    "stream": "BOOL",
    "top_k": "INT32",
    "temperature": "FP32",
    "seed": "UINT64",
    "exclude_input_in_output": "BOOL",
    "return_perf_metrics": "BOOL",
    "return_num_output_tokens": "BOOL",
    "return_num_input_tokens": "BOOL",
}
TEXT_OUTPUTS = {"text_output": "BYTES", "num_input_tokens": "INT32", "num_output_tokens": "INT32", **PERF}
ENSEMBLE = schema("ensemble", TEXT_INPUTS, TEXT_OUTPUTS)
BLS = schema("tensorrt_llm_bls", TEXT_INPUTS, TEXT_OUTPUTS, text_mode="cumulative")


def request(**fields: Any) -> InferenceRequest:
    sampling = Sampling(**{k: fields.pop(k) for k in list(fields) if k in Sampling.__struct_fields__})
    values: dict[str, Any] = {"prompt_ids": [5, 6, 7], "prompt_text": "Hello", "end_id": 2, **fields}
    return InferenceRequest(id="r", model="m", stream=True, sampling=sampling, **{"max_tokens": 10, **values})


def tensors(of: Schema, **fields: Any) -> dict[str, Any]:
    return lane_of(of).tensors(request(**fields))


def read(of: Schema, *events: dict[str, Any], **fields: Any) -> RecordingSink:
    """What comes of `events`; a reader that also takes them as JSON must make the same of both."""
    sink, other = RecordingSink(), RecordingSink()
    reader, second = (lane_of(of).reader(request(**fields), to) for to in (sink, other))
    payload = getattr(second, "payload", None)
    for event in events:
        reader.event(event)
        if payload is not None:
            payload(json.dumps(event).encode())
    reader.finish()
    if payload is not None:
        second.finish()
        assert outcome(other) == outcome(sink)
    return sink


def outcome(sink: RecordingSink) -> dict[str, Any]:
    kept = {name: value for name, value in vars(sink).items() if isinstance(value, list | int | str | Usage)}
    return {**kept, "error": (type(sink.error), str(sink.error))}


def ids(*values: int, **others: Any) -> dict[str, Any]:
    """A response as `generate_stream` gives it."""
    one = values[0] if len(values) == 1 else list(values)
    return {"output_ids": one, "sequence_length": len(values), **others}
