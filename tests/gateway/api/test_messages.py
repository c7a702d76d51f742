"""Messages: roles, content parts, and what a chat template would lose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.api.errors import ApiError
from gateway.api.requests import ApiRequest, BodyLimits, parse_chat

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TEXT = {"type": "text", "text": "a"}


def parse(*messages: Any) -> ApiRequest:
    return parse_chat(json.dumps({"model": "m", "messages": messages}).encode(), BodyLimits())


def refusal(*messages: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(*messages).refuse_unserved()
    assert caught.value.status == 400
    return caught.value


def test_text_parts_are_joined_by_newlines() -> None:
    got = parse({"role": "user", "content": [TEXT, {"type": "text", "text": "b"}]})
    assert got.messages == [{"role": "user", "content": "a\nb"}]
    assert got.raw["messages"][0]["content"][1]["text"] == "b"


def test_an_answer_of_the_sdk_may_be_sent_back() -> None:
    """The SDK dumps every field of the answer's message, most of them null."""
    got = parse(
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Hello",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "reasoning": None,
        },
    )
    got.refuse_unserved()
    assert got.messages is not None
    assert got.messages[1] == {"role": "assistant", "content": "Hello"}


def test_a_refusal_stands_for_missing_content() -> None:
    got = parse({"role": "assistant", "content": None, "refusal": "No."})
    assert got.messages == [{"role": "assistant", "content": "No."}]
    got = parse({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]})
    assert got.messages == [{"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"content": "a"}, "messages[1].role", "missing_required_parameter"),
        ({"role": "user"}, "messages[1].content", "missing_required_parameter"),
        ({"role": "assistant"}, "messages[1].content", "missing_required_parameter"),
        ({"role": "assistant", "tool_calls": []}, "messages[1].content", "missing_required_parameter"),
        ({"role": "User", "content": "a"}, "messages[1].role", "invalid_value"),
        ({"role": 5, "content": "a"}, "messages[1].role", "invalid_type"),
        ({"role": "user", "content": 5}, "messages[1].content", "invalid_type"),
        ({"role": "user", "content": {"type": "text"}}, "messages[1].content", "invalid_type"),
        ({"role": "user", "content": []}, "messages[1].content", "invalid_value"),
        ({"role": "user", "content": ["a"]}, "messages[1].content[0]", "invalid_type"),
        (
            {"role": "user", "content": [TEXT, {}]},
            "messages[1].content[1].type",
            "missing_required_parameter",
        ),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "messages[1].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": 5}]},
            "messages[1].content[0].text",
            "invalid_type",
        ),
        ({"role": "tool", "content": "a"}, "messages[1].tool_call_id", "missing_required_parameter"),
        ({"role": "function", "content": "a"}, "messages[1].name", "missing_required_parameter"),
        ({"role": "user", "content": "a", "name": 5}, "messages[1].name", "invalid_type"),
        ({"role": "user", "content": "a", "cache": 1}, "messages[1].cache", "unknown_parameter"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[1].content[0]",
            "unsupported_parameter",
        ),
        (
            {"role": "tool", "content": "a", "tool_call_id": "c1"},
            "messages[1].tool_call_id",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]},
            "messages[1].tool_calls[0]",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "id": 5}]},
            "messages[1].tool_calls[0].id",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"arguments": "{}"}}]},
            "messages[1].tool_calls[0].function.name",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]},
            "messages[1].tool_calls[0].function.arguments",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": ""}},
            "messages[1].function_call",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "content": "a", "audio": {"id": "x"}},
            "messages[1].audio",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "content": "a", "reasoning_content": 5},
            "messages[1].reasoning_content",
            "invalid_type",
        ),
        ({"role": "function", "content": "a", "name": "f"}, "messages[1].role", "unsupported_parameter"),
    ],
)
def test_a_wrong_message_is_refused_by_path(message: Any, param: str, code: str) -> None:
    error = refusal({"role": "user", "content": "first"}, message)
    assert (error.param, error.code) == (param, code)
    assert param in str(error)


def test_what_is_not_text_is_left_for_an_upstream() -> None:
    got = parse(
        {
            "role": "user",
            "content": [TEXT, {"type": "input_audio", "input_audio": {}}, {"type": "video_url"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "42", "tool_call_id": "c2"},
    )
    params = [
        "messages[0].content[1]",
        "messages[0].content[2]",
        "messages[2].tool_call_id",
    ]
    assert [item.param for item in got.unsupported] == params
    assert got.raw["messages"][1]["tool_calls"] == [CALL]


def test_tool_calls_and_their_results_are_what_templates_take() -> None:
    """Arguments as an object, null content as none, the called function's name on the result."""
    asked = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": [1]}'}}
    bare = {"id": "c2", "function": {"name": "now", "arguments": ""}}
    got = parse(
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [asked, bare], "reasoning_content": "Hm."},
        {"role": "tool", "content": [TEXT, TEXT], "tool_call_id": "c1"},
        {"role": "tool", "content": "12:00", "tool_call_id": "c2", "name": "clock"},
    )
    got.refuse_unserved()
    assert got.tools_at == "messages[1].tool_calls"
    assert got.messages is not None
    assert got.messages[1:] == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": [1]}}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "a\na", "tool_call_id": "c1", "name": "add"},
        {"role": "tool", "content": "12:00", "tool_call_id": "c2", "name": "clock"},
    ]
    assert parse({"role": "user", "content": "a", "name": "b"}).tools_at is None
