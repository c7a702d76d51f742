"""Recognition by names and types alone, and tensors on gRPC's wire."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from inference.control import engine_metrics
from inference.errors import ProtocolError, SchemaError
from inference.grpc_tensors import infer_request, outputs_of, wire_shape
from inference.schema import Schema, Tensor, recognise

BARE_IN = {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32"}
BARE_OUT = {"output_ids": "INT32", "sequence_length": "INT32"}
TEXT_IN = {"text_input": "BYTES", "max_tokens": "INT32"}
LLMAPI_IN = {"text_input": "BYTES", "sampling_param_max_tokens": "INT32", "streaming": "BOOL"}
TEXT_OUT = {"text_output": "BYTES"}
STEPS = [
    {"model_name": "a", "input_map": {"QUERY": "text_input"}},
    {"model_name": "b", "input_map": {"request_output_len": "_LEN"}},
]


def metadata(inputs: dict[str, str], outputs: dict[str, str], name: str = "any-name") -> dict[str, Any]:
    def side(tensors: dict[str, str]) -> list[dict[str, Any]]:
        return [{"name": n, "datatype": t, "shape": ["-1", "1"]} for n, t in tensors.items()]

    return {"name": name, "inputs": side(inputs), "outputs": side(outputs)}


def config(**parameters: str) -> dict[str, Any]:
    return {
        "max_batch_size": 4,
        "model_transaction_policy": {"decoupled": True},
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


@pytest.mark.parametrize(
    ("inputs", "outputs", "settings", "lane"),
    [
        (BARE_IN, BARE_OUT, config(), "tensorrt_llm"),
        (TEXT_IN, TEXT_OUT, {**config(), "ensemble_scheduling": {"step": STEPS}}, "ensemble"),
        (TEXT_IN, TEXT_OUT, config(), "tensorrt_llm_bls"),
        (LLMAPI_IN, TEXT_OUT, config(), "llmapi"),
    ],
)
@pytest.mark.parametrize("name", ["tensorrt_llm", "ensemble", "x"])
def test_the_name_decides_nothing(
    inputs: dict[str, str], outputs: dict[str, str], settings: dict[str, Any], lane: str, name: str
) -> None:
    schema = recognise(metadata(inputs, outputs, name), settings)
    assert (schema.lane, schema.target, schema.decoupled, schema.max_batch_size) == (lane, name, True, 4)
    assert Schema.from_dict(schema.as_dict()) == schema


@pytest.mark.parametrize(
    ("parameters", "guides"),
    [
        ({"guided_decoding_backend": "xgrammar"}, True),
        ({"guided_decoding_backend": "${guided_decoding_backend}"}, False),
        ({}, False),
    ],
)
def test_an_engine_says_whether_it_guides(parameters: dict[str, str], guides: bool) -> None:
    schema = recognise(metadata(BARE_IN, BARE_OUT), config(**parameters))
    assert schema.guided_decoding is guides
    assert Schema.from_dict(schema.as_dict()) == schema


def test_an_ensembles_steps_tell_what_is_behind_it() -> None:
    schema = recognise(metadata(TEXT_IN, TEXT_OUT), {"ensemble_scheduling": {"step": STEPS}})
    assert (schema.bare_target, schema.preprocessing_target) == ("b", "a")


@pytest.mark.parametrize(
    ("given", "mode"), [("true", "cumulative"), ("false", "delta"), ("${accumulate_tokens}", "delta")]
)
def test_bls_says_whether_it_accumulates(given: str, mode: str) -> None:
    schema = recognise(metadata(TEXT_IN, TEXT_OUT), config(accumulate_tokens=given))
    assert schema.text_mode == mode


@pytest.mark.parametrize(
    ("given", "bare"), [("mine", "mine"), ("${tensorrt_llm_model_name}", "tensorrt_llm")]
)
def test_bls_says_which_engine_it_calls(given: str, bare: str) -> None:
    schema = recognise(metadata(TEXT_IN, TEXT_OUT), config(tensorrt_llm_model_name=given))
    assert schema.bare_target == bare


def test_what_is_missing_for_the_nearest_lane_is_listed() -> None:
    almost = {**BARE_IN, "input_lengths": "INT64"}
    with pytest.raises(SchemaError, match=r"Nearest is tensorrt_llm.*lacks: input input_lengths INT32$"):
        recognise(metadata(almost, BARE_OUT), {})


@pytest.mark.parametrize("stored", [{}, {"inputs": {}, "outputs": {}}, {"inputs": {"a": 1}, "outputs": {}}])
def test_what_is_not_a_stored_schema_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="stored schema"):
        Schema.from_dict(stored)


@pytest.mark.parametrize(
    ("declared", "count", "wire"),
    [
        ([-1, 1], 1, [1, 1]),
        ([-1, -1], 7, [1, 7]),
        ([-1, 2, -1], 6, [1, 2, 3]),
        ([-1], 3, [3]),
        ([1], 1, [1]),
        ([-1, -1, -1], 4, [1, 1, 4]),
    ],
)
def test_shapes_follow_generates_rule(declared: list[int], count: int, wire: list[int]) -> None:
    assert wire_shape(declared, count) == wire


VALUES = {
    "INT32": [1, -2],
    "UINT64": [2**64 - 1],
    "FP32": [0.5, -1.0],
    "BOOL": [True, False],
    "BYTES": ["", "東京", "a"],
}


@pytest.mark.parametrize("datatype", list(VALUES))
def test_values_survive_the_wire(datatype: str) -> None:
    values = VALUES[datatype]
    sent = infer_request("m", "id", {"x": values}, {"x": Tensor(datatype, (-1,))})
    response = service_pb2.ModelInferResponse(raw_output_contents=list(sent.raw_input_contents))
    response.outputs.add(name="x", datatype=datatype, shape=[len(values)])
    assert outputs_of(response)["x"] == (values if len(values) > 1 else values[0])


@pytest.mark.parametrize("raw", [b"\x05\x00\x00\x00ab", b"\x01", b"\x01\x00\x00\x00\xff"])
def test_broken_texts_are_no_answer(raw: bytes) -> None:
    response = service_pb2.ModelInferResponse(raw_output_contents=[raw])
    response.outputs.add(name="x", datatype="BYTES", shape=[1])
    with pytest.raises(ProtocolError, match="output x"):
        outputs_of(response)


def test_gauges_are_those_of_the_model() -> None:
    text = """# HELP nv_trt_llm_request_metrics x
nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 64
nv_trt_llm_request_metrics{model="other",request_type="max",version="1"} 8
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="m",version="1"} 3.2e1
nv_inference_count{model="m",version="1"} 5
"""
    assert engine_metrics(text, "m") == {
        "nv_trt_llm_request_metrics": {"max": 64.0},
        "nv_trt_llm_kv_cache_block_metrics": {"tokens_per": 32.0},
    }


IDS = {"input_ids": "INT64", "attention_mask": "INT64"}


def side(**tensors: tuple[str, list[int]]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in tensors.items()]


@pytest.mark.parametrize(
    ("inputs", "outputs", "max_batch_size", "lane", "vectors", "dimensions"),
    [
        (
            side(input_ids=("INT64", [-1, -1]), attention_mask=("INT64", [-1, -1])),
            side(sentence_embedding=("FP32", [-1, 384])),
            8, "encoder", "sentence_embedding", 384,
        ),
        (
            side(input_ids=("INT32", [-1, -1]), token_type_ids=("INT32", [-1, -1])),
            side(last_hidden_state=("FP32", [-1, -1, 768]), pooler_output=("FP32", [-1, 768])),
            0, "encoder", "last_hidden_state", 768,
        ),
        (side(input_ids=("INT64", [-1])), side(x=("FP32", [-1])), 0, "encoder", "x", None),
        (
            side(input_ids=("INT64", [-1, -1])),
            side(token_embeddings=("FP32", [-1, -1, 8]), sentence_embedding=("FP32", [-1, 8])),
            4, "encoder", "sentence_embedding", 8,
        ),
        (side(TEXT=("BYTES", [-1, 1])), side(v=("FP32", [-1, 512])), 16, "text_encoder", "v", 512),
        (side(TEXT=("BYTES", [-1])), side(v=("FP32", [-1, 512])), 0, "text_encoder", "v", 512),
    ],
)  # fmt: skip
def test_embedding_models_are_told_by_their_tensors(
    inputs: Any, outputs: Any, max_batch_size: int, lane: str, vectors: str, dimensions: int | None
) -> None:
    schema = recognise(
        {"name": "m", "inputs": inputs, "outputs": outputs}, {"max_batch_size": max_batch_size}
    )
    assert (schema.lane, schema.vectors, schema.dimensions) == (lane, vectors, dimensions)
    assert Schema.from_dict(schema.as_dict()) == schema


@pytest.mark.parametrize(
    ("inputs", "outputs", "settings", "lacks"),
    [
        (IDS, {"v": "FP16"}, {}, "output FP32 of one dimension"),
        ({**IDS, "attention_mask": "FP32"}, {"v": "FP32"}, {}, "input attention_mask INT64 or INT32"),
        ({**IDS, "pixels": "FP32"}, {"v": "FP32"}, {}, "a meaning for the required input pixels"),
        (IDS, {"a": "FP32", "b": "FP32"}, {}, "one output that is known to hold the vectors among a, b"),
        (IDS, {"v": "FP32"}, {"model_transaction_policy": {"decoupled": True}}, "not decoupled"),
    ],
)
def test_what_keeps_a_model_from_embedding_is_listed(
    inputs: dict[str, str], outputs: dict[str, str], settings: dict[str, Any], lacks: str
) -> None:
    with pytest.raises(SchemaError, match=rf"Nearest is encoder, for which it lacks: .*{lacks}"):
        recognise(metadata(inputs, outputs), {"max_batch_size": 4, **settings})


def test_an_input_that_may_be_left_out_needs_no_meaning() -> None:
    optional = {"input": [{"name": "pixels", "optional": True}], "max_batch_size": 4}
    assert recognise(metadata({**IDS, "pixels": "FP32"}, {"v": "FP32"}), optional).lane == "encoder"


def test_both_dialects_of_llmapi_and_vllms_model_are_recognised() -> None:
    newest = {**LLMAPI_IN, "lora_name": "BYTES", "lora_id": "UINT64"}
    assert recognise(metadata(newest, TEXT_OUT), config()).lane == "llmapi"
    vllm = {"text_input": "BYTES", "sampling_parameters": "BYTES", "stream": "BOOL"}
    assert recognise(metadata(vllm, TEXT_OUT), config()).lane == "vllm"
