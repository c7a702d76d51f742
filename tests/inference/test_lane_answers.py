"""How each lane reads what a server answers: pure parts, against the names of the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from inference.errors import ProtocolError, ServerFailedError, StreamBrokenError
from inference.lanes import lane_of
from inference.lanes.text import Deltas
from inference.request import EngineTimes, Usage
from inference.schema import Schema, Tensor
from tests.inference.lane_schemas import (
    BARE,
    BARE_INPUTS,
    BARE_OUTPUTS,
    BLS,
    ENSEMBLE,
    LLMAPI,
    ids,
    read,
    request,
    schema,
    tensors,
)
from tests.inference.recording import RecordingSink


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
        (BARE, {"output_ids": 1 << 31}),
        (BARE, {"output_ids": [1, 1 << 70]}),
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
