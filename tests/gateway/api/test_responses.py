"""The Responses API: bodies become chat requests, answers become what OpenAI's schema says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api.answers import Choice
from gateway.api.errors import ErrorShape
from gateway.api.json_body import BodyLimits
from gateway.api.requests import ApiRequest
from gateway.api.responses.fields import FITS, ResponsesBody
from gateway.api.responses.translate import NOT_SERVED, parse_responses
from gateway.operations import Head
from gateway.operations.responses import Responses
from inference.request import Usage
from tests.gateway.api import asked
from tests.gateway.api.answer_parts import answers, encoded, named_events, pieces_of
from tests.openai_schema import definitions, validate

LIMITS = BodyLimits()
USAGE = Usage(prompt_tokens=9, completion_tokens=7, cached_tokens=4, reasoning_tokens=2)
EVENTS = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.output_item.added": "ResponseOutputItemAddedEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.content_part.added": "ResponseContentPartAddedEvent",
    "response.content_part.done": "ResponseContentPartDoneEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
    "response.output_text.done": "ResponseTextDoneEvent",
    "response.reasoning_text.delta": "ResponseReasoningTextDeltaEvent",
    "response.reasoning_text.done": "ResponseReasoningTextDoneEvent",
    "response.function_call_arguments.delta": "ResponseFunctionCallArgumentsDeltaEvent",
    "response.function_call_arguments.done": "ResponseFunctionCallArgumentsDoneEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.failed": "ResponseFailedEvent",
    "error": "ResponseErrorEvent",
}
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
FULL: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "developer", "content": "Answer in English."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "?"}],
        },
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "sun"}]},
        {"role": "user", "content": "Thanks."},
    ],
    "max_output_tokens": 30,
    "temperature": 0.5,
    "top_p": 0.9,
    "stream": True,
    "tools": [WEATHER],
    "tool_choice": {"type": "function", "name": "weather"},
    "parallel_tool_calls": False,
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "high", "summary": "auto"},
    "metadata": {"order": "7"},
    "service_tier": "flex",
    "user": "u",
    "store": False,
    "include": [],
    "truncation": "disabled",
}


def parse(**fields: Any) -> ApiRequest:
    return parse_responses(json.dumps({"model": "m", "input": "Hi", **fields}).encode(), LIMITS)


refusal = partial(asked.refusal, parse)


def head(**fields: Any) -> Head:
    return Head("r1", 1_700_000_000, parse(**fields), "default", 9)


def test_a_body_becomes_the_chat_request_it_stands_for() -> None:
    """Everything is carried, in chat's own words."""
    chat = parse_responses(json.dumps(FULL).encode(), LIMITS).raw
    validate("CreateChatCompletionRequest", chat)
    call = {"name": "weather", "arguments": "{}"}
    second = {"name": "weather", "arguments": '{"a":1}'}
    assert chat == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Answer in English."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": call},
                    {"id": "c2", "type": "function", "function": second},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": "sun"},
            {"role": "user", "content": "Thanks."},
        ],
        "stream": True,
        "max_completion_tokens": 30,
        "temperature": 0.5,
        "top_p": 0.9,
        "service_tier": "flex",
        "user": "u",
        "parallel_tool_calls": False,
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {}, "strict": True},
        },
        "verbosity": "low",
        "reasoning_effort": "high",
    }


def test_a_string_is_a_users_message() -> None:
    assert parse(input="Hello").messages == [{"role": "user", "content": "Hello"}]


def test_allowed_tools_are_carried() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    chat = parse(tools=[WEATHER], tool_choice=choice).raw
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "weather"}}]}
    assert chat["tool_choice"] == {"type": "allowed_tools", "allowed_tools": allowed}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "king", "content": "a"}]}, "input[0].role"),
        ({"input": [{"content": "a"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
            "input[0].content[0].text",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": "a", "contents": "b"}]}, "input[0].contents"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "web_search", "search_context_size": "low"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [WEATHER | {"stricter": True}]}, "tools[0].stricter"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"reasoning": {"effort": 5}}, "reasoning.effort"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"include": ["reasoning.encrypted_content"]}, "include"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"temprature": 1}, "temprature"),
        ({"messages": []}, "messages"),
    ],
)
def test_mistakes_are_named_by_the_clients_own_path(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert f"`{param}`" in str(error)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_p": 0}, "top_p"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"tools": [WEATHER]}, "tools"),
    ],
)
def test_what_a_lane_cannot_do_is_named_by_the_clients_own_path(fields: dict[str, Any], param: str) -> None:
    """Whatever the chat parser says of its own fields; where a lane can do it, nothing is refused."""
    api = parse(**fields)
    assert api.translation is not None
    for item in api.unsupported:
        shape = ErrorShape(400, "t", "c", f"`{item.param}` is not served", item.param)
        told = api.translation.in_clients_words(shape)
        assert (told.param or "").startswith(param)
        assert told.message == f"`{told.param}` is not served"


def test_every_field_of_openais_is_known() -> None:
    """Served or refused by its name, never an unknown one."""
    parts = definitions()["CreateResponse"]["allOf"]
    parts = [definitions()[part["$ref"].rpartition("/")[2]] if "$ref" in part else part for part in parts]
    names: set[str] = set()
    for part in parts:
        for inner in part.get("allOf", [part]):
            inner = definitions()[inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
            names |= inner.get("properties", {}).keys()
    assert len(names) > 20
    assert names - set(ResponsesBody.__struct_fields__) == set()
    assert set(NOT_SERVED) <= names


def fields_of(struct: Any, place: str = "") -> Iterator[str]:
    """The path of every field that a body may hold."""
    hints = get_type_hints(struct, include_extras=False)
    for name in struct.__struct_fields__:
        path = f"{place}.{name}" if place else name
        yield path
        yield from _inside(hints[name], path)


def _inside(hint: Any, path: str) -> Iterator[str]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield from fields_of(hint, path)
    elif getattr(hint, "__origin__", None) is list:
        yield f"{path}[]"
        yield from _inside(get_args(hint)[0], f"{path}[]")
    elif getattr(hint, "__origin__", None) is not dict:
        for one in get_args(hint):
            yield from _inside(one, path)


def test_every_field_says_what_fits() -> None:
    assert set(fields_of(ResponsesBody)) - set(FITS) == set()


@given(answers(), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
def test_events_are_openais_and_add_up_to_the_answer(choice: Choice, data: st.DataObject) -> None:
    """However the answer is cut; the last event holds what was said, and a whole answer says the same."""
    asked = head(instructions="Be brief.", tools=[WEATHER], metadata={"a": "b"}, user="u")
    stream = Responses().events(asked, 1)
    parts = list(pieces_of(choice, data.draw))
    sent = b"".join([*encoded(stream, parts, choice), stream.end(USAGE)])
    events = named_events(sent)
    for event in events:
        validate(EVENTS[event["type"]], event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    whole = json.loads(Responses().answer(asked, [choice], USAGE))
    validate("Response", whole)
    assert last == whole
    assert added_up(events) == [text_of(item) for item in whole["output"]]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == whole["output"]


def added_up(events: list[dict[str, Any]]) -> list[str]:
    """What the deltas of each item come to."""
    texts: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.output_item.added":
            texts[event["output_index"]] = ""
        elif event["type"].endswith(".delta"):
            texts[event["output_index"]] += event["delta"]
    return [texts[index] for index in sorted(texts)]


def text_of(item: dict[str, Any]) -> str:
    text: str = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
    return text


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_an_answer_ended(reason: Any, status: str, details: Any) -> None:
    whole = json.loads(Responses().answer(head(), [Choice("Hi", reason)], USAGE))
    assert (whole["status"], whole["incomplete_details"]) == (status, details)
    assert whole["output"][-1]["status"] == status
    assert whole["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }


def test_what_was_asked_is_echoed() -> None:
    whole = json.loads(
        Responses().answer(Head("r1", 1, parse(**FULL), "flex"), [Choice("Hi", "stop")], USAGE)
    )
    validate("Response", whole)
    assert whole["store"] is False
    assert whole["metadata"] == {"order": "7"}
    assert whole["tools"] == [WEATHER]
    assert whole["tool_choice"] == {"type": "function", "name": "weather"}
    assert whole["text"]["format"] == FULL["text"]["format"]
    assert whole["reasoning"] == {"effort": "high", "summary": "auto"}
    assert (whole["temperature"], whole["top_p"], whole["max_output_tokens"]) == (0.5, 0.9, 30)
    assert (whole["service_tier"], whole["parallel_tool_calls"], whole["user"]) == ("flex", False, "u")


def test_a_broken_stream_fails() -> None:
    """By an error event and the response as far as it came, in the stream's own numbers."""
    stream = Responses().events(head(), 1)
    sent = stream.opening(0) + stream.delta(0, "Hel")
    sent += stream.error(ErrorShape(502, "server_error", "stream_broken", "It stopped."))
    events = named_events(sent)
    for event in events:
        validate(EVENTS[event["type"]], event)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "It stopped."}


def test_paths_of_the_chat_request_are_told_as_the_clients() -> None:
    """Of whatever the chat parser, a template or an upstream finds wrong with it."""
    translation = parse(**FULL).translation
    assert translation is not None
    told = {
        "messages": "input",
        "messages[0].content": "instructions",
        "messages[2].content": "input[1].content",
        "messages[3].tool_calls[1].function.arguments": "input[5].arguments",
        "messages[3].tool_calls[0].id": "input[4].call_id",
        "messages[3].tool_calls": "input[4]",
        "messages[4].role": "input[6]",
        "messages[4].tool_call_id": "input[6].call_id",
        "messages[5].content": "input[7].output",
        "tools[0].function.parameters.type": "tools[0].parameters.type",
        "tool_choice.function.name": "tool_choice.name",
        "response_format.json_schema.schema": "text.format.schema",
        "max_completion_tokens": "max_output_tokens",
        "temperature": "temperature",
    }
    assert {path: translation.place_of(path) for path in told} == told
