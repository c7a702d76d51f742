"""Answers and events are what OpenAI's schema says, and carry every text unharmed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.answers import (
    DONE,
    CalledTool,
    ChatStream,
    Choice,
    CompletionStream,
    LogProb,
    Shown,
    chat_answer,
    completion_answer,
    completion_logprobs,
    model_answer,
    models_answer,
)
from inference.request import Usage
from model_registry.entities import Model
from tests.openai_schema import is_valid, validate

CHAT_CHUNK = "CreateChatCompletionStreamResponse"
LOG_PROBS = [LogProb(b"He", -0.25), LogProb(b"llo", -math.inf), LogProb(b"\xe2\x82", -3.0)]
USAGE = Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=3)
MODEL = Model(name="m", context_length=2048, created=1_700_000_000)


def chat_stream(**options: Any) -> ChatStream:
    return ChatStream("chatcmpl-1", 1_700_000_000, 'na"me', 2, **options)


def data(event: bytes) -> Any:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    return json.loads(event.removeprefix(b"data: "))


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("extras", [{}, {"service_tier": "flex", "system_fingerprint": "fp_1"}])
def test_chat_events_are_openais(include_usage: bool, extras: dict[str, str]) -> None:
    stream = chat_stream(include_usage=include_usage, **extras)
    events = [
        stream.opening(1),
        stream.delta(1, "Hi"),
        stream.delta(1, "Hi", LOG_PROBS),
        stream.finish(1, "length"),
    ]
    for event in events:
        chunk = data(event)
        validate(CHAT_CHUNK, chunk)
        assert ("usage" in chunk) is include_usage
        assert chunk["choices"][0]["index"] == 1
        assert {"id": "chatcmpl-1", "model": 'na"me', **extras}.items() <= chunk.items()
    role, delta, _, finish = (data(event)["choices"][0] for event in events)
    assert role["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert (delta["delta"], delta["finish_reason"]) == ({"content": "Hi"}, None)
    assert (finish["delta"], finish["finish_reason"]) == ({}, "length")


def test_the_usage_event_has_counts_and_no_choice() -> None:
    for stream in (chat_stream(include_usage=True), CompletionStream("c", 1, "m", include_usage=True)):
        chunk = data(stream.end(USAGE).removesuffix(DONE))
        assert chunk["choices"] == []
        assert chunk["usage"] == {
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 3},
        }
        validate("CompletionUsage", chunk["usage"])
    validate(CHAT_CHUNK, data(chat_stream(include_usage=True).end(Usage()).removesuffix(DONE)))
    assert chat_stream().end(USAGE) == DONE


def test_tool_calls_and_reasoning_are_events_of_their_own() -> None:
    stream = chat_stream()
    events = [
        stream.reasoning(0, "hm"),
        stream.tool_call(0, 1, "call_1", "look_up"),
        stream.tool_arguments(0, 1, '{"a":'),
        stream.finish(0, "tool_calls"),
    ]
    deltas = [data(event)["choices"][0]["delta"] for event in events]
    for event in events:
        validate(CHAT_CHUNK, data(event))
    assert deltas[0] == {"reasoning_content": "hm"}
    assert deltas[1]["tool_calls"] == [
        {"index": 1, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
    ]
    assert deltas[2]["tool_calls"] == [{"index": 1, "function": {"arguments": '{"a":'}}]


def test_a_whole_answer_holds_its_tool_calls_and_reasoning() -> None:
    called = [CalledTool("call_1", "look_up", '{"a":1}')]
    answer = json.loads(
        chat_answer("chatcmpl-1", 1, "m", [Choice("", "tool_calls", None, "hm", called)], USAGE)
    )
    validate("CreateChatCompletionResponse", answer)
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["reasoning_content"] == "hm"
    assert message["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"a":1}'}


def test_chat_log_probs_name_token_and_bytes() -> None:
    logprobs = data(chat_stream().delta(0, "Hello", LOG_PROBS))["choices"][0]["logprobs"]
    assert logprobs["refusal"] is None
    assert logprobs["content"] == [
        {"token": "He", "logprob": -0.25, "bytes": [72, 101], "top_logprobs": []},
        {"token": "llo", "logprob": -9999.0, "bytes": [108, 108, 111], "top_logprobs": []},
        {"token": "bytes:\\xe2\\x82", "logprob": -3.0, "bytes": [0xE2, 0x82], "top_logprobs": []},
    ]


@pytest.mark.parametrize("include_usage", [False, True])
def test_completion_events_are_openais(include_usage: bool) -> None:
    stream = CompletionStream("cmpl-1", 1, "m", 2, include_usage=include_usage, system_fingerprint="fp")
    events = [stream.delta(1, "Hi"), stream.delta(1, "Hello", LOG_PROBS), stream.finish(1, "stop")]
    for event in events:
        chunk = data(event)
        assert ("usage" in chunk) is include_usage
        assert chunk.pop("usage", None) is None
        if chunk["choices"][0]["finish_reason"] is None:  # OpenAI describes no events of completions
            chunk["choices"][0]["finish_reason"] = "stop"
        validate("CreateCompletionResponse", chunk)
        assert chunk["choices"][0]["index"] == 1


def test_completion_text_offsets_go_on_over_events() -> None:
    stream = CompletionStream("cmpl-1", 1, "m", 2)
    offsets = [
        data(stream.delta(index, "ab", [LogProb(b"a", -1.0), LogProb(b"bcd", -1.0)]))["choices"][0][
            "logprobs"
        ]["text_offset"]
        for index in (1, 1, 0, 1)
    ]
    assert offsets == [[0, 1], [4, 5], [0, 1], [8, 9]]
    assert completion_logprobs([]) == {"tokens": [], "token_logprobs": [], "text_offset": []}


@pytest.mark.parametrize("log_probs", [None, [], LOG_PROBS])
def test_whole_answers_are_openais(log_probs: list[LogProb] | None) -> None:
    choices = [Choice('a "b"\n', "stop", log_probs), Choice("", "length", log_probs)]
    chat = json.loads(
        chat_answer("i", 1, "m", choices, USAGE, service_tier="default", system_fingerprint="fp")
    )
    validate("CreateChatCompletionResponse", chat)
    assert [c["message"]["content"] for c in chat["choices"]] == ['a "b"\n', ""]
    assert [c["finish_reason"] for c in chat["choices"]] == ["stop", "length"]
    completion = json.loads(completion_answer("i", 1, "m", choices, USAGE))
    validate("CreateCompletionResponse", completion)
    assert [(c["index"], c["text"]) for c in completion["choices"]] == [(0, 'a "b"\n'), (1, "")]
    assert chat["usage"] == completion["usage"]
    for answer in (chat, completion):
        assert [c["logprobs"] is None for c in answer["choices"]] == [log_probs is None] * 2


def test_models_are_openais() -> None:
    listed = json.loads(models_answer([Shown("m", MODEL), Shown("alias", MODEL)]))
    validate("ListModelsResponse", listed)
    assert [item["id"] for item in listed["data"]] == ["m", "alias"]
    one = json.loads(model_answer(Shown("m", MODEL)))
    validate("Model", one)
    assert one == listed["data"][0]
    assert one["context_length"] == 2048


def test_the_schema_would_notice_a_mistake() -> None:
    """Each part that a stream writes by template is one that the schema checks."""
    mistakes: list[dict[str, Any]] = [
        {"object": "chat.completion"},
        {"id": 5},
        {"choices": [{"index": 0}]},
        {"usage": {}},
    ]
    for broken in mistakes:
        assert not is_valid(CHAT_CHUNK, data(chat_stream().delta(0, "a")) | broken)


@given(text=st.text(), index=st.integers(0, 1))
def test_any_text_comes_through(text: str, index: int) -> None:
    """Quotes, control characters, line separators and all else Unicode has."""
    assert data(chat_stream().delta(index, text))["choices"][0]["delta"]["content"] == text
    stream = CompletionStream("c", 1, text, 2)
    chunk = data(stream.delta(index, text, [LogProb(text.encode(), -1.0)]))
    assert (chunk["model"], chunk["choices"][0]["text"]) == (text, text)
    assert (
        json.loads(chat_answer("i", 1, "m", [Choice(text, "stop")], USAGE))["choices"][0]["message"][
            "content"
        ]
        == text
    )


def test_likeliest_tokens_are_shown_beside_the_chosen_one() -> None:
    """As a list of objects in chat, as a column of objects in completions."""
    scored = [LogProb(b"a", -0.1, ((b"a", -0.1), (b"b", -math.inf))), LogProb(b"c", -0.2)]
    entries = data(chat_stream().delta(0, "ac", scored))["choices"][0]["logprobs"]["content"]
    assert entries[0]["top_logprobs"] == [
        {"token": "a", "logprob": -0.1, "bytes": [97]},
        {"token": "b", "logprob": -9999.0, "bytes": [98]},
    ]
    assert entries[1]["top_logprobs"] == []
    assert completion_logprobs(scored)["top_logprobs"] == [{"a": -0.1, "b": -9999.0}, {}]
    validate(CHAT_CHUNK, data(chat_stream().delta(0, "ac", scored)))


def test_done_is_the_end_of_a_stream() -> None:
    assert DONE == b"data: [DONE]\n\n"
