"""What each lane sends: pure parts, against the names of the contract."""

from __future__ import annotations

from typing import Any

import pytest

from inference.errors import SchemaError, UnsupportedFeatureError
from inference.lanes import lane_of
from inference.lanes.options import words_list
from inference.schema import Schema
from tests.inference.lane_schemas import (
    BARE,
    BARE_INPUTS,
    BARE_OUTPUTS,
    ENSEMBLE,
    LLMAPI,
    request,
    schema,
    tensors,
)


def test_the_bare_model_gets_ids() -> None:
    sent = tensors(BARE, pad_id=9, seed=4)
    assert sent == {
        "input_ids": [5, 6, 7],
        "input_lengths": 3,
        "request_output_len": 10,
        "exclude_input_in_output": True,
        "return_perf_metrics": True,
        "streaming": True,
        "end_id": 2,
        "pad_id": 9,
        "seed": 4,
    }


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"temperature": 0.0, "top_p": 0.5}, {"runtime_top_k": 1}),
        ({"top_p": 0.0}, {"runtime_top_k": 1}),
        ({"temperature": 0.7}, {"temperature": 0.7, "runtime_top_p": 1.0}),
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "runtime_top_p": 0.9}),
        ({"temperature": 0.7, "top_k": 40}, {"temperature": 0.7, "runtime_top_k": 40}),
        ({"temperature": 0.7, "top_k": -1}, {"temperature": 0.7, "runtime_top_p": 1.0}),
        ({}, {}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"min_tokens": 3}, {"min_tokens": 3}),
    ],
)
def test_sampling_means_what_openai_means(sampling: dict[str, Any], expected: dict[str, Any]) -> None:
    """Without top-k and top-p the engine takes the likeliest token, whatever the temperature."""
    names = {"temperature", "runtime_top_k", "runtime_top_p", "repetition_penalty", "min_tokens"}
    sent = tensors(BARE, **sampling)
    assert {name: value for name, value in sent.items() if name in names} == expected


def test_the_older_dialect_has_older_names() -> None:
    inputs = {**BARE_INPUTS, "min_length": "INT32", "random_seed": "UINT64"}
    del inputs["min_tokens"], inputs["seed"]
    sent = tensors(schema("tensorrt_llm", inputs, BARE_OUTPUTS), min_tokens=3, seed=-1)
    assert sent["min_length"] == 3
    assert sent["random_seed"] == 2**64 - 1
    assert "seed" not in sent
    assert "min_tokens" not in sent


@pytest.mark.parametrize("of", [BARE, ENSEMBLE, LLMAPI])
def test_without_a_seed_every_request_gets_its_own(of: Schema) -> None:
    seeds = {next(v for k, v in tensors(of).items() if k.endswith("seed")) for _ in range(20)}
    assert len(seeds) == 20


def test_only_declared_inputs_are_sent() -> None:
    few = {name: kind for name, kind in BARE_INPUTS.items() if name in {"input_ids", "input_lengths"}}
    sent = tensors(schema("tensorrt_llm", {**few, "request_output_len": "INT32"}, BARE_OUTPUTS))
    assert set(sent) == {"input_ids", "input_lengths", "request_output_len"}


def test_stop_words_are_ids_and_ends() -> None:
    assert words_list([(1, 2), (3,)]) == [1, 2, 3, 2, 3, -1]
    assert words_list([(4,)]) == [4, 1]
    assert "stop_words_list" not in tensors(BARE)
    assert tensors(BARE, stop_ids=((1, 2), (3,)))["stop_words_list"] == [1, 2, 3, 2, 3, -1]


def test_text_models_get_text() -> None:
    sent = tensors(ENSEMBLE, stop=("\n", "END"), temperature=0.0, seed=1)
    assert sent["text_input"] == "Hello"
    assert sent["stop_words"] == ["\n", "END"]
    assert sent["top_k"] == 1
    assert sent["exclude_input_in_output"] is True


def test_llmapi_gets_its_own_names() -> None:
    sent = tensors(LLMAPI, stop=("END",), temperature=0.5, seed=1)
    assert sent == {
        "text_input": ["Hello"],
        "streaming": True,
        "return_finish_reason": True,
        "sampling_param_max_tokens": 10,
        "sampling_param_temperature": 0.5,
        "sampling_param_top_p": 1.0,
        "sampling_param_seed": 1,
        "sampling_param_stop": ["END"],
        "sampling_param_exclude_input_from_output": True,
    }


@pytest.mark.parametrize(
    ("of", "fields", "param"),
    [
        (LLMAPI, {"log_probs": True}, "logprobs"),
        (LLMAPI, {"min_tokens": 2}, "min_tokens"),
        (LLMAPI, {"repetition_penalty": 1.1}, "repetition_penalty"),
        (LLMAPI, {"presence_penalty": 0.1}, "presence_penalty"),
        (ENSEMBLE, {"log_probs": True}, "logprobs"),
        (BARE, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (schema("tensorrt_llm", {}, {}), {"stop": ("x",), "stream": False}, "stop"),
        (schema("tensorrt_llm", {}, {}), {}, "stream"),
    ],
)
def test_what_a_schema_cannot_carry_is_refused(of: Schema, fields: dict[str, Any], param: str) -> None:
    asked = request(**{k: v for k, v in fields.items() if k != "stream"})
    asked.stream = fields.get("stream", True)
    with pytest.raises(UnsupportedFeatureError, match=of.lane) as caught:
        lane_of(of).check(asked)
    assert caught.value.param == param


def test_end_tokens_of_the_tokenizer_are_no_demand() -> None:
    """A model's further end tokens go to an engine that takes stop words."""
    plain = schema("tensorrt_llm", {"streaming": "BOOL"}, BARE_OUTPUTS)
    lane_of(plain).check(request(stop_ids=((9,),)))
    assert "stop_words_list" not in tensors(plain, stop_ids=((9,),))


def test_a_neutral_penalty_asks_for_nothing() -> None:
    lane_of(LLMAPI).check(request(presence_penalty=0.0, repetition_penalty=1.0, min_tokens=0))


def test_other_lanes_are_not_tritons() -> None:
    with pytest.raises(SchemaError, match="openai-http"):
        lane_of(Schema("openai-http", "m"))
