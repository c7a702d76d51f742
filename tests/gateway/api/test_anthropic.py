"""The Messages API: bodies become chat requests, answers become what Anthropic's SDK reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse, Message, RawMessageStreamEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import TypeAdapter

from gateway.api.answers import CalledTool, Choice
from gateway.api.anthropic.errors import encode_error
from gateway.api.anthropic.fields import (
    BLOCK_FITS,
    FITS,
    Block,
    MessagesBody,
    OutputConfig,
    Thinking,
    Tool,
    ToolChoice,
)
from gateway.api.anthropic.translate import parse_count, parse_messages
from gateway.api.errors import ERROR_TABLE, ApiError, ErrorShape
from gateway.api.json_body import BodyLimits
from gateway.api.requests import ApiRequest
from gateway.operations import Head
from gateway.operations.messages import Messages
from inference.request import Usage
from tests.gateway.api.answer_parts import answers, encoded, named_events, pieces_of
from tests.gateway.api.test_responses import fields_of
from tests.openai_schema import validate

LIMITS = BodyLimits()
USAGE = Usage(prompt_tokens=9, completion_tokens=7, cached_tokens=4)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}}
HELLO = [{"role": "user", "content": "Hi"}]
FULL: dict[str, Any] = {
    "model": "m",
    "max_tokens": 3000,
    "system": [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {}},
                {"type": "tool_use", "id": "t2", "name": "weather", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "no such place"}],
                    "is_error": True,
                },
                {"type": "text", "text": "And"},
                {"type": "text", "text": "now?"},
            ],
        },
    ],
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "stream": True,
    "tools": [WEATHER],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u"},
    "service_tier": "standard_only",
    "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {}}},
}


def parse(**fields: Any) -> ApiRequest:
    body = {"model": "m", "max_tokens": 10, "messages": HELLO, **fields}
    return parse_messages(json.dumps(body).encode(), LIMITS)


def head(**fields: Any) -> Head:
    return Head("r1", 1_700_000_000, parse(**fields), None, 9)


def test_a_body_becomes_the_chat_request_it_stands_for() -> None:
    """Everything is carried, in chat's own words."""
    chat = parse_messages(json.dumps(FULL).encode(), LIMITS).raw
    validate("CreateChatCompletionRequest", chat)
    assert chat == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief.\nBe kind."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                    {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "rain"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: no such place"},
            {"role": "user", "content": "And\nnow?"},
        ],
        "stream": True,
        "max_completion_tokens": 3000,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["END"],
        "user": "u",
        "service_tier": "default",
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "parameters": {"type": "object"}, "description": "Tells it."},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {}, "strict": True},
        },
        "reasoning_effort": "xhigh",
    }


@pytest.mark.parametrize(
    ("asked", "carried"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
)
def test_tool_choices(asked: dict[str, Any], carried: Any) -> None:
    assert parse(tools=[WEATHER], tool_choice=asked).raw["tool_choice"] == carried


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "a"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": 5}]}],
                    }
                ]
            },
            "messages[0].content[0].content[0].type",
        ),
        ({"messages": [*HELLO, {"role": "assistant", "content": "So"}]}, "messages[1].role"),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]}, *HELLO]},
            "messages[0].content[0].name",
        ),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": ["a", "b", "c", "d", "e"]}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"stop_sequences": ["x" * 2000]}, "stop_sequences[0]"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"container": "c"}, "container"),
        ({"stop_sequence": ["a"]}, "stop_sequence"),
    ],
)
def test_mistakes_are_named_by_the_clients_own_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value)


def test_paths_of_the_chat_request_are_told_as_the_clients() -> None:
    translation = parse_messages(json.dumps(FULL).encode(), LIMITS).translation
    assert translation is not None
    told = {
        "messages": "messages",
        "messages[0].content": "system",
        "messages[2].tool_calls[1].function.arguments": "messages[1].content[3].arguments",
        "messages[2].content": "messages[1].content",
        "messages[3].tool_call_id": "messages[2].content[0].tool_use_id",
        "messages[4].content": "messages[2].content[1].content",
        "messages[5].content": "messages[2].content",
        "tools[0].function.parameters.type": "tools[0].input_schema.type",
        "stop[1]": "stop_sequences[1]",
        "max_completion_tokens": "max_tokens",
        "response_format.json_schema.schema": "output_config.format.schema",
        "user": "metadata.user_id",
    }
    assert {path: translation.place_of(path) for path in told} == told


def test_thinking_that_is_switched_off_is_asked_not_to_be() -> None:
    api = parse(thinking={"type": "disabled"})
    assert api.raw["reasoning_effort"] == "none"
    assert api.translation is not None
    assert api.translation.place_of("reasoning_effort") == "thinking"


def test_counting_needs_no_max_tokens() -> None:
    assert parse_count(json.dumps({"model": "m", "messages": HELLO}).encode(), LIMITS).max_tokens is None


def test_every_field_says_what_fits() -> None:
    plain = {name for name in MessagesBody.__struct_fields__ if name not in ("messages", "system")}
    assert plain - set(FITS) == set()
    for name in Block.__struct_fields__:
        for place in ("messages[].content[]", "system[]", "messages[].content[].content[].content[]"):
            assert BLOCK_FITS[f"{place}.{name}"]
    for struct, place in ((Tool, "tools[]"), (ToolChoice, "tool_choice"), (Thinking, "thinking")):
        assert set(fields_of(struct, place)) - set(FITS) == set()
    assert set(fields_of(OutputConfig, "output_config")) - set(FITS) == set()


@given(answers(), st.data(), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60, deadline=None)
def test_events_are_anthropics_and_add_up_to_the_answer(
    choice: Choice, data: st.DataObject, thinks: bool
) -> None:
    """However the answer is cut; thinking is shown to who asked for it."""
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000} if thinks else {}
    asked = head(**thinking)
    if choice.finish_reason == "stop" and data.draw(st.booleans()):
        choice = replace(choice, stop="END")
    stream = Messages().events(asked, 1)
    sent = b"".join([*encoded(stream, list(pieces_of(choice, data.draw)), choice), stream.end(USAGE)])
    events = named_events(sent)
    for event in events:
        EVENT.validate_python(event)
    whole = json.loads(Messages().answer(asked, [choice], USAGE))
    Message.model_validate(whole)
    assert added_up(events) == whole
    assert ("thinking" in {block["type"] for block in whole["content"]}) is (
        thinks and choice.reasoning is not None
    )


def added_up(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of the events; blocks come one after the other."""
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    message = events[0]["message"]
    inputs: dict[int, str] = {}
    open_index = None
    for event in events[1:-1]:
        match event["type"]:
            case "content_block_start":
                assert open_index is None
                open_index = event["index"]
                assert open_index == len(message["content"])
                message["content"].append(dict(event["content_block"]))
            case "content_block_delta":
                assert event["index"] == open_index
                block, delta = message["content"][open_index], event["delta"]
                if delta["type"] == "input_json_delta":
                    inputs[open_index] = inputs.get(open_index, "") + delta["partial_json"]
                else:
                    key = delta["type"].removesuffix("_delta")
                    block[key] += delta[key]
            case "content_block_stop":
                assert event["index"] == open_index
                if open_index in inputs:
                    message["content"][open_index]["input"] = json.loads(inputs[open_index])
                open_index = None
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    assert open_index is None
    return dict(message)


@pytest.mark.parametrize(
    ("reason", "stop", "told"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
        ("content_filter", None, ("refusal", None)),
    ],
)
def test_how_an_answer_ended(reason: Any, stop: str | None, told: Any) -> None:
    whole = json.loads(Messages().answer(head(), [Choice("Hi", reason, stop=stop)], USAGE))
    assert (whole["stop_reason"], whole["stop_sequence"]) == told
    usage = whole["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (5, 4, 7)
    assert usage["cache_creation_input_tokens"] == 0


def test_a_stream_begins_with_its_prompts_tokens() -> None:
    events = named_events(Messages().events(head(), 1).opening(0))
    assert events[0]["message"]["usage"]["input_tokens"] == 9


@pytest.mark.parametrize("arguments", ['{"a": 1}', "", "not JSON", "[1]", "[" * 5000])
def test_a_tools_input_is_an_object_whatever_the_model_wrote(arguments: str) -> None:
    choice = Choice("", "tool_calls", tool_calls=[CalledTool("t", "f", arguments)])
    block = json.loads(Messages().answer(head(), [choice], USAGE))["content"][0]
    assert isinstance(block["input"], dict)
    assert arguments != "not JSON" or block["input"] == {"arguments": "not JSON"}


def test_errors_are_anthropics() -> None:
    """Every row of the table has a type that the SDK knows."""
    too_large = ErrorShape(413, "t", "c", "m")  # of a type that is documented, and not in the SDK's list
    shapes = [*ERROR_TABLE.values(), ErrorShape(408, "t", "c", "m"), too_large]
    for shape in shapes:
        body = json.loads(encode_error(shape))
        if shape is not too_large:
            ErrorResponse.model_validate({**body, "request_id": None})
        assert body["type"] == "error"
        assert body["error"]["message"]
    kinds = {shape.status: json.loads(encode_error(shape))["error"]["type"] for shape in shapes}
    assert kinds[400] == "invalid_request_error"
    assert kinds[401] == "authentication_error"
    assert kinds[403] == "permission_error"
    assert kinds[404] == "not_found_error"
    assert kinds[413] == "request_too_large"
    assert kinds[429] == "rate_limit_error"
    assert kinds[500] == "api_error"
    assert kinds[503] == "overloaded_error"


def test_a_broken_stream_ends_with_an_error_event() -> None:
    stream = Messages().events(head(), 1)
    sent = stream.opening(0) + stream.delta(0, "Hel")
    sent += stream.error(ErrorShape(502, "server_error", "stream_broken", "It stopped."))
    assert named_events(sent)[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "It stopped."},
    }
