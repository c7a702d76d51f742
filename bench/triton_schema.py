"""What makes the stub pass for a Triton with the bare `tensorrt_llm`: its metadata and configuration."""

from __future__ import annotations

from typing import Any

MAX_BATCH_SIZE = 4096
INPUTS = {
    "input_ids": ("INT32", [-1]),
    "input_lengths": ("INT32", [1]),
    "request_output_len": ("INT32", [1]),
    "end_id": ("INT32", [1]),
    "pad_id": ("INT32", [1]),
    "stop_words_list": ("INT32", [2, -1]),
    "bad_words_list": ("INT32", [2, -1]),
    "beam_width": ("INT32", [1]),
    "temperature": ("FP32", [1]),
    "runtime_top_k": ("INT32", [1]),
    "runtime_top_p": ("FP32", [1]),
    "repetition_penalty": ("FP32", [1]),
    "presence_penalty": ("FP32", [1]),
    "frequency_penalty": ("FP32", [1]),
    "min_tokens": ("INT32", [1]),
    "seed": ("UINT64", [1]),
    "return_log_probs": ("BOOL", [1]),
    "exclude_input_in_output": ("BOOL", [1]),
    "stop": ("BOOL", [1]),
    "streaming": ("BOOL", [1]),
}
REQUIRED = frozenset({"input_lengths", "request_output_len"})
OUTPUTS = {"output_ids": ("INT32", [-1, -1]), "sequence_length": ("INT32", [-1])}
PARAMETERS = {
    "gpt_model_type": "inflight_fused_batching",
    "batch_scheduler_policy": "max_utilization",
    "cancellation_check_period_ms": "20",
    "exclude_input_in_output": "true",
}


def metadata(model: str) -> dict[str, Any]:
    """What `GET /v2/models/<model>` answers."""
    return {
        "name": model,
        "versions": ["1"],
        "platform": "tensorrtllm",
        "inputs": [_described(name, kind, dims) for name, (kind, dims) in INPUTS.items()],
        "outputs": [_described(name, kind, dims) for name, (kind, dims) in OUTPUTS.items()],
    }


def config(model: str) -> dict[str, Any]:
    """What `GET /v2/models/<model>/config` answers, as far as anyone reads it."""
    return {
        "name": model,
        "platform": "",
        "backend": "tensorrtllm",
        "max_batch_size": MAX_BATCH_SIZE,
        "input": [
            {"name": name, "data_type": f"TYPE_{kind}", "dims": dims, "optional": name not in REQUIRED}
            for name, (kind, dims) in INPUTS.items()
        ],
        "output": [
            {"name": name, "data_type": f"TYPE_{kind}", "dims": dims}
            for name, (kind, dims) in OUTPUTS.items()
        ],
        "parameters": {name: {"string_value": value} for name, value in PARAMETERS.items()},
        "model_transaction_policy": {"decoupled": True},
        "dynamic_batching": {"default_queue_policy": {"max_queue_size": 0}},
        "instance_group": [{"name": f"{model}_0", "kind": "KIND_CPU", "count": 1, "gpus": []}],
    }


def _described(name: str, kind: str, dims: list[int]) -> dict[str, Any]:
    # The server adds the batch dimension to what the configuration says.
    return {"name": name, "datatype": kind, "shape": [-1, *dims]}
