"""Probes of what an answer must look like: guided output, tools and reasoning."""

from __future__ import annotations

import json
import re

import jsonschema

from tests.conformance.ask import QUESTION, Ask, content, reason, streamed
from tests.conformance.probes.probe import probes

PROBES, probe = probes()

# Guided output


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


@probe("guided output", "response_format: json_object")
def json_object(ask: Ask) -> None:
    """Small models write keys without an end: what is cut off by its length must still be an object's begin.

    Text lanes of 0.19 tell no count, so that `finish_reason` is not always known there.
    """
    answer = ask.chat(response_format={"type": "json_object"}, max_tokens=500)
    text = content(answer).lstrip()
    try:
        assert isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        assert text.startswith("{")
        assert answer["usage"]["completion_tokens"] > 250


@probe("guided output", "response_format: json_schema, strict")
def json_schema(ask: Ask) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": SCHEMA}}
    jsonschema.validate(json.loads(ask.text(response_format=wanted, max_tokens=200)), SCHEMA)
    jsonschema.validate(json.loads(streamed(ask.chat_events(response_format=wanted, max_tokens=200))), SCHEMA)


@probe("guided output", "guided_json")
def guided_json(ask: Ask) -> None:
    jsonschema.validate(json.loads(ask.text(guided_json=SCHEMA, max_tokens=200)), SCHEMA)


@probe("guided output", "guided_regex")
def guided_regex(ask: Ask) -> None:
    assert re.fullmatch(r"[0-9]{3}-[0-9]{2}", ask.text(guided_regex="[0-9]{3}-[0-9]{2}"))


@probe("guided output", "guided_choice")
def guided_choice(ask: Ask) -> None:
    assert ask.text(guided_choice=["north", "south"]) in {"north", "south"}


@probe("guided output", "guided_grammar")
def guided_grammar(ask: Ask) -> None:
    assert ask.text(guided_grammar='root ::= "yes" | "no"') in {"yes", "no"}


# Tools and reasoning


TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a city up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@probe("tools", "tools offered")
def tools_offered(ask: Ask) -> None:
    with_tools = ask.chat(tools=[TOOL])
    assert with_tools["usage"]["prompt_tokens"] > ask.chat()["usage"]["prompt_tokens"], (
        "not shown to the model"
    )


@probe("tools", "tool_choice: required")
def tool_required(ask: Ask) -> None:
    answer = ask.chat(tools=[TOOL], tool_choice="required", max_tokens=200)
    _check_call(answer["choices"][0]["message"]["tool_calls"][0]["function"])
    assert reason(answer) == "tool_calls"


@probe("tools", "tool_choice: named, streamed")
def tool_named(ask: Ask) -> None:
    choice = {"type": "function", "function": {"name": "look_up"}}
    events = ask.chat_events(tools=[TOOL], tool_choice=choice, max_tokens=200)
    deltas = [d for e in events for c in e["choices"] for d in c["delta"].get("tool_calls") or ()]
    name = "".join(d["function"].get("name") or "" for d in deltas)
    _check_call({"name": name, "arguments": "".join(d["function"].get("arguments") or "" for d in deltas)})


@probe("tools", "tool results in messages")
def tool_results(ask: Ask) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"city":"Paris"}'},
    }
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Paris, two million people"},
    ]
    answer = ask.chat(messages=messages, tools=[TOOL])
    assert answer["usage"]["prompt_tokens"] > ask.chat(tools=[TOOL])["usage"]["prompt_tokens"]


def _check_call(function: dict[str, str]) -> None:
    assert function["name"] == "look_up"
    jsonschema.validate(json.loads(function["arguments"]), TOOL["function"]["parameters"])  # type: ignore[index]
