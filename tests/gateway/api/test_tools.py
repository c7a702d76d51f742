"""Tools: what is taken, what is refused and how, and the form that a forced call is guided to."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.api.errors import ApiError
from gateway.api.template_names import check_names_read
from gateway.api.tools import no_tool_parser
from tests.gateway.api import asked
from tests.gateway.api.asked import chat as parse

SCHEMA = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/n"}},
    "required": ["a"],
    "$defs": {"n": {"type": "integer"}},
}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "add"}}


refusal = partial(asked.refusal, parse)


def function(**members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **members}}


def test_tools_are_taken_as_they_are() -> None:
    got = parse(tools=[ADD, NOW], parallel_tool_calls=False)
    got.refuse_unserved()
    assert got.tools is not None
    assert got.tools.definitions == [ADD, NOW]
    assert (got.tools.names, got.tools.choice, got.tools.parallel) == ({"add", "now"}, "auto", False)
    assert got.tools_at == "tools"
    assert got.guide is None
    for absent in (parse(), parse(tools=[], tool_choice="auto"), parse(tools=None, tool_choice="none")):
        assert (absent.tools, absent.tools_at, absent.guide) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [NOW, {"type": "tool"}]}, "tools[1].type", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
            "missing_required_parameter",
        ),
        ({"tools": [function(name="a b")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [function(name="x" * 65)]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters", "invalid_value"),
        ({"tools": [function(description=5)]}, "tools[0].function.description", "invalid_value"),
        ({"tools": [function(strict="yes")]}, "tools[0].function.strict", "invalid_value"),
        ({"tools": [function(strict=True)]}, "tools[0].function.strict", "unsupported_parameter"),
        ({"tools": [NOW, NOW]}, "tools", "invalid_value"),
        ({"tools": [function(name=f"f{n}") for n in range(129)]}, "tools", "invalid_value"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [NOW], "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"tools": [NOW], "tool_choice": {}}, "tool_choice", "missing_required_parameter"),
        ({"tools": [NOW], "tool_choice": NAMED}, "tool_choice.function.name", "invalid_value"),
        (
            {"tools": [NOW], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            "tool_choice",
            "unsupported_parameter",
        ),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
    ],
)
def test_wrong_tools_are_refused_by_name(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(**fields)
    assert (error.param, error.code) == (param, code)
    assert f"`{param}`" in str(error)


def test_what_was_replaced_names_what_replaced_it() -> None:
    assert "Send `tools`" in str(refusal(functions=[{"name": "f"}]))
    assert "`tool_parser`" in str(no_tool_parser("tools", "m"))


def guided(**fields: Any) -> Draft202012Validator:
    guide = parse(tools=[ADD, NOW], **fields).guide
    assert guide is not None
    assert guide.kind == "json_schema"
    schema = json.loads(guide.text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_a_required_call_is_guided_to_a_list_of_calls() -> None:
    """References within a tool's schema still hold where it stands."""
    validator = guided(tool_choice="required")
    add, now = {"name": "add", "parameters": {"a": 1}}, {"name": "now", "parameters": {}}
    assert validator.is_valid([add, now])
    for wrong in ([], [{"name": "add", "parameters": {"a": "x"}}], [{"name": "sub", "parameters": {}}], add):
        assert not validator.is_valid(wrong)
    assert not guided(tool_choice="required", parallel_tool_calls=False).is_valid([add, now])


def test_a_named_call_is_guided_to_its_arguments() -> None:
    assert guided(tool_choice=NAMED).is_valid({"a": 1})
    assert not guided(tool_choice=NAMED).is_valid({"a": "x"})
    assert guided(tool_choice={"type": "function", "function": {"name": "now"}}).is_valid({})


def test_strict_is_kept_where_the_answer_is_guided() -> None:
    parse(tools=[function(strict=True)], tool_choice="required").refuse_unserved()


@pytest.mark.parametrize(
    ("names", "param"),
    [
        ({"messages": []}, "chat_template_kwargs.messages"),
        ({"add_generation_prompt": False}, "chat_template_kwargs.add_generation_prompt"),
        ({"self": 1}, "chat_template_kwargs.self"),
        ({"a b": 1}, "chat_template_kwargs"),
        ({"x" * 65: 1}, "chat_template_kwargs"),
        ({f"n{n}": 1 for n in range(33)}, "chat_template_kwargs"),
        ({"a": "x" * 9000}, "chat_template_kwargs"),
        (5, "chat_template_kwargs"),
    ],
)
def test_names_for_the_template_are_bounded_and_not_ours(names: Any, param: str) -> None:
    assert refusal(chat_template_kwargs=names).param == param


def test_names_must_be_read_by_the_template() -> None:
    names = parse(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low").template_names
    read = frozenset({"messages", "enable_thinking", "reasoning_effort"})
    assert check_names_read(names, read) == {"enable_thinking": False, "reasoning_effort": "low"}
    with pytest.raises(ApiError) as caught:
        check_names_read(names, frozenset({"messages", "reasoning_effort", "think"}))
    assert caught.value.param == "chat_template_kwargs.enable_thinking"
    assert "think." in str(caught.value)
    with pytest.raises(ApiError) as caught:
        check_names_read(names, frozenset({"enable_thinking"}))
    assert caught.value.param == "reasoning_effort"
    assert check_names_read(parse(reasoning_effort="none").template_names, frozenset()) == {}
