"""What each lane sends and how it reads: pure parts, against the names of the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inference.classify import classify_error
from inference.errors import (
    InferenceError,
    PromptTooLongError,
    ProtocolError,
    RequestRefusedError,
    SchemaError,
    ServerBusyError,
    ServerFailedError,
    ServerTimeoutError,
    ServerUnreachableError,
    StreamBrokenError,
    UnsupportedFeatureError,
)
from inference.lanes import lane_of
from inference.lanes.options import words_list
from inference.lanes.text import Deltas
from inference.request import EngineTimes, InferenceRequest, Sampling, Usage
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


# What is sent


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


# What is read


def test_tokens_are_passed_on_as_they_come() -> None:
    sink = read(BARE, ids(11), ids(12, 13), ids(2, last_token_time_ns=5, kv_cache_reused_blocks=0))
    assert (sink.ids, sink.reason, sink.usage) == ([11, 12, 13, 2], "stop", Usage(3, 4, 0))


TIMES = {
    "arrival_time_ns": 5_000_000_000,
    "first_scheduled_time_ns": 5_250_000_000,
    "first_token_time_ns": 5_350_000_000,
    "last_token_time_ns": 6_350_000_000,
}


@pytest.mark.parametrize(
    ("of", "done"),
    [
        (BARE, ids(2)),
        (ENSEMBLE, {"text_output": "x"}),
        (LLMAPI, {"text_output": "x", "finish_reason": "stop"}),
    ],
)
@pytest.mark.parametrize("kind", [int, str, lambda value: [value]], ids=["number", "text", "list"])
def test_an_engine_tells_how_long_a_request_waited_there(
    of: Schema, done: dict[str, Any], kind: Callable[[int], Any]
) -> None:
    """In whatever form the lane's numbers come."""
    sink = read(of, done | {name: kind(value) for name, value in TIMES.items()})
    assert sink.usage is not None
    assert sink.usage.engine == EngineTimes(0.25, 0.1, 1.0)


@pytest.mark.parametrize(
    "changed",
    [{"arrival_time_ns": 0}, {"first_token_time_ns": None}, {"first_scheduled_time_ns": 4_000_000_000}],
    ids=["unset", "missing", "backwards"],
)
def test_times_that_cannot_be_are_not_told(changed: dict[str, Any]) -> None:
    last = {name: value for name, value in {**TIMES, **changed}.items() if value is not None}
    sink = read(BARE, ids(2, **last))
    assert sink.usage is not None
    assert (sink.reason, sink.usage.engine) == ("stop", None)


def test_padding_is_not_an_answer() -> None:
    sink = read(BARE, {"output_ids": [11, 12, -1, -1], "sequence_length": 2}, ids(-1), ids(2))
    assert sink.ids == [11, 12, 2]


@pytest.mark.parametrize(
    ("events", "fields", "reason"),
    [
        ([ids(1), ids(2)], {}, "stop"),
        ([ids(1), ids(3)], {"max_tokens": 2}, "length"),
        ([ids(1), ids(2)], {"max_tokens": 2}, "stop"),
        ([ids(1), ids(8), ids(9)], {"stop_ids": ((8, 9),)}, "stop"),
        ([ids(1), ids(3, last_token_time_ns=9)], {}, "stop"),
        ([ids(1), ids(3), {"output_ids": [], "sequence_length": 0, "last_token_time_ns": 9}], {}, "stop"),
    ],
)
def test_a_whole_answer_ends_with_its_reason(events: Any, fields: dict[str, Any], reason: str) -> None:
    assert read(BARE, *events, **fields).reason == reason


@pytest.mark.parametrize("events", [[], [ids(1), ids(3)], [ids(1, last_token_time_ns=0)]])
def test_a_truncated_answer_is_broken(events: list[dict[str, Any]]) -> None:
    assert isinstance(read(BARE, *events).error, StreamBrokenError)


def test_an_engine_that_cannot_prove_its_end_is_believed() -> None:
    without_metrics = schema("tensorrt_llm", BARE_INPUTS, BARE_OUTPUTS)
    assert read(without_metrics, ids(1), ids(3)).reason == "stop"


@pytest.mark.parametrize("of", [BARE, ENSEMBLE, LLMAPI])
def test_an_error_ends_the_answer_once(of: Schema) -> None:
    sink = read(of, {"error": "Executor failed process requestId 1: boom"}, {"error": "again"})
    assert isinstance(sink.error, ServerFailedError)
    assert sink.ends == 1


@pytest.mark.parametrize("sent", [[-0.5, -0.25], [-9.0, -0.5, -0.25]], ids=["of-the-new", "of-all-so-far"])
def test_log_probabilities_belong_to_the_new_tokens(sent: list[float]) -> None:
    sink = read(BARE, ids(1, output_log_probs=-9.0), ids(3, 2, output_log_probs=sent), log_probs=True)
    assert sink.log_probs == [-9.0, -0.5, -0.25]


def test_cached_tokens_are_whole_blocks_of_the_prompt() -> None:
    last = ids(2, kv_cache_reused_blocks=2)
    assert read(BARE, last, prompt_ids=[1] * 100).usage == Usage(100, 1, 64)
    assert read(BARE, last, prompt_ids=[1] * 40).usage == Usage(40, 1, 40)


@pytest.mark.parametrize(
    ("of", "event"),
    [
        (BARE, {"output_ids": [0.5, 0.5]}),
        (BARE, {"output_ids": 0.5}),
        (BARE, {"output_ids": "x"}),
        (BARE, {"text_output": "x"}),
        (BARE, {}),
        (ENSEMBLE, {"text_output": [0.5]}),
        (ENSEMBLE, {"output_ids": [1]}),
        (LLMAPI, {"text_output": 7}),
    ],
)
def test_foreign_tensors_are_no_answer(of: Schema, event: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        lane_of(of).reader(request(), RecordingSink()).event(event)


def test_ensemble_text_is_a_delta_and_tokens_are_summed() -> None:
    sink = read(
        ENSEMBLE,
        {"text_output": "He", "num_input_tokens": 3, "num_output_tokens": 1},
        {"text_output": "llo", "num_input_tokens": 3, "num_output_tokens": 2, "last_token_time_ns": 1},
    )
    assert (sink.deltas, sink.reason, sink.usage) == (["He", "llo"], "stop", Usage(3, 3, None))


def test_a_truncated_text_is_broken() -> None:
    for of in (ENSEMBLE, BLS):
        assert isinstance(read(of, {"text_output": "He", "last_token_time_ns": 0}).error, StreamBrokenError)
    assert isinstance(read(LLMAPI, {"text_output": "He", "finish_reason": "None"}).error, StreamBrokenError)


def test_text_at_its_limit_is_whole() -> None:
    assert read(ENSEMBLE, {"text_output": "He", "num_output_tokens": 10}).reason == "length"


@pytest.mark.parametrize("told", [-5, "-5", [-5]])
def test_less_than_no_tokens_are_none(told: Any) -> None:
    last = {"text_output": "He", "num_input_tokens": told, "num_output_tokens": told, "last_token_time_ns": 1}
    assert read(ENSEMBLE, last).usage == Usage(0, 0)


@pytest.mark.parametrize("of", [BLS, LLMAPI])
def test_whole_texts_become_deltas(of: Schema) -> None:
    done = {"finish_reason": "length", "last_token_time_ns": "123", "kv_cache_reused_block": "0"}
    sink = read(of, {"text_output": "He"}, {"text_output": "Hel"}, {"text_output": ["Hello"], **done})
    assert sink.deltas == ["He", "l", "lo"]
    assert sink.error is None


def test_deltas_hold_back_half_a_character() -> None:
    deltas = Deltas()
    assert [deltas.push(text) for text in ("a", "a\ufffd", "aé", "aé!")] == ["a", "", "é", "!"]
    assert deltas.flush() == ""


def test_deltas_survive_a_stop_string_cut_off() -> None:
    deltas = Deltas()
    assert [deltas.push(text) for text in ("Hi END", "Hi ")] == ["Hi END", ""]


def test_a_stop_string_that_llmapi_cuts_off_is_put_back() -> None:
    """Also where its beginning was sent before."""
    inputs, outputs = {**LLMAPI.inputs}, {**LLMAPI.outputs}
    inputs["return_stop_reason"] = Tensor("BOOL", (-1, 1))
    outputs["stop_reason"] = Tensor("BYTES", (-1, 1))
    telling = replace(LLMAPI, inputs=inputs, outputs=outputs)
    assert tensors(telling, stop=("END",))["return_stop_reason"] is True
    assert "return_stop_reason" not in tensors(telling)
    none, end = {"stop_reason": "None"}, {"finish_reason": "stop", "stop_reason": "END"}
    for before in ("Hi", "Hi E"):
        events = {"text_output": before, **none}, {"text_output": "Hi ", **end}
        sink = read(telling, *events, stop=("END",))
        assert (sink.text_so_far, sink.reason) == ("Hi END", "stop")


def test_an_answer_that_ends_in_half_a_character_says_so() -> None:
    sink = read(LLMAPI, {"text_output": "a\ufffd", "finish_reason": "length"})
    assert sink.text_so_far == "a\ufffd"


def test_other_lanes_are_not_tritons() -> None:
    with pytest.raises(SchemaError, match="openai-http"):
        lane_of(Schema("openai-http", "m"))


# What errors mean


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "Executor failed process requestId 3 due to the following error: boom", ServerFailedError),
        (500, "... Prompt length (9) exceeds maximum input length (8). Set ...", PromptTooLongError),
        (200, "Prompt length (9) exceeds maximum input length (8)", PromptTooLongError),
        (503, "Exceeds maximum queue size", ServerBusyError),
        (500, "in ensemble 'e', Exceeds maximum queue size", ServerBusyError),
        (503, "Request timeout expired", ServerTimeoutError),
        (400, "Request for unknown model: 'x' is not found", ServerUnreachableError),
        (500, "Stub process 'x_0_0' is not healthy.", ServerUnreachableError),
        (400, "input 'x' has unexpected shape", RequestRefusedError),
        (400, "anything", RequestRefusedError),
        (429, "anything", ServerBusyError),
        (504, "anything", ServerTimeoutError),
        (500, "", ServerFailedError),
    ],
)
def test_errors_are_told_apart_by_text_and_status(status: int, text: str, kind: type[InferenceError]) -> None:
    assert type(classify_error(status, text)) is kind


def test_of_a_traceback_only_its_end_is_kept() -> None:
    trace = 'Traceback (most recent call last):\n  File "/x/model.py", line 1\nValueError: bad words\n'
    assert str(classify_error(500, trace)) == "bad words"
