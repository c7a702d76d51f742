"""Tools: the functions that a model may call, which of them it must, and how an answer is made to call.

What OpenAI would refuse is refused when it is read. What it knows and the Triton lanes do not is recorded as
unserved, and so is `strict` where nothing forces the answer's form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from gateway.api.errors import ApiError, bad_request
from gateway.api.fields import ChatBody
from gateway.api.unserved import Unsupported
from inference.request import Guide

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Choice = Literal["none", "auto", "required", "named"]
_CHOICES: Mapping[str, Choice] = {"none": "none", "auto": "auto", "required": "required"}
_NAME_FITS = "1 to 64 of a-z A-Z 0-9 _ -"


class ToolUse(Struct):
    """The tools of one request."""

    definitions: list[dict[str, Any]]
    """As the client sent them, which is how chat templates want them."""
    names: frozenset[str]
    choice: Choice
    named: str = ""
    """The function that must be called."""
    parallel: bool = True
    """An answer may hold several calls."""


def read_tools(chat: ChatBody, unsupported: list[Unsupported]) -> ToolUse | None:
    """The tools of `chat`, where it has any. Raises ApiError 400; `unsupported` takes what is not served."""
    if not chat.tools:
        if chat.tool_choice not in (None, "none", "auto"):
            raise bad_request("`tool_choice` needs `tools`. Send the tools, or remove it.", "tool_choice")
        return None
    if len(chat.tools) > MAX_TOOLS:
        raise bad_request(f"`tools` holds more than {MAX_TOOLS} tools. Send fewer.", "tools")
    functions = [
        function
        for i, tool in enumerate(chat.tools)
        if (function := _function(tool, f"tools[{i}]", unsupported)) is not None
    ]
    names = frozenset(function["name"] for function in functions)
    if len(names) < len(functions):
        raise bad_request("`tools` names a function twice. Give each a name of its own.", "tools")
    choice, named = _choice(chat.tool_choice, names, unsupported)
    if choice in ("none", "auto"):
        unsupported.extend(_strict(chat.tools))
    return ToolUse(chat.tools, names, choice, named, chat.parallel_tool_calls is not False)


def guide_of(tools: ToolUse | None) -> Guide | None:
    """The form that an answer must have to call as `tool_choice` says; None where it is free."""
    if tools is None or tools.choice in ("none", "auto"):
        return None
    functions = {t["function"]["name"]: t["function"] for t in tools.definitions if "function" in t}
    if tools.choice == "named":
        return Guide("json_schema", json.dumps(_parameters(functions[tools.named])))
    definitions = {name: _moved(_parameters(function), name) for name, function in functions.items()}
    calls: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": list(map(_call, functions))}}
    if not tools.parallel:
        calls["maxItems"] = 1
    return Guide("json_schema", json.dumps({**calls, "$defs": definitions}))


def no_tool_parser(param: str, model: str) -> ApiError:
    """What a client is told of a model whose tool calls nobody can read."""
    return bad_request(
        f"`{param}` is not supported by the model {model!r}, whose form of tool calls is not known here. "
        "Remove it, or ask the operator to set the model's `tool_parser` to hermes, llama3_json, mistral or "
        "pythonic.",
        param,
        "unsupported_parameter",
    )


def _function(tool: dict[str, Any], place: str, unsupported: list[Unsupported]) -> dict[str, Any] | None:
    kind = tool.get("type")
    if kind == "custom":
        unsupported.append(Unsupported(place, "only tools of type function are served here"))
        return None
    if kind != "function":
        raise _misfit(f"{place}.type", '"function"', kind)
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _misfit(f"{place}.function", "an object with a name", function)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _misfit(f"{place}.function.name", _NAME_FITS, name)
    for key, types, fits in _MEMBERS:
        if function.get(key) is not None and not isinstance(function[key], types):
            raise _misfit(f"{place}.function.{key}", fits, function[key])
    return function


_MEMBERS: tuple[tuple[str, type, str], ...] = (
    ("description", str, "a string"),
    ("parameters", dict, "a JSON schema of an object"),
    ("strict", bool, "true or false"),
)


def _choice(
    choice: str | dict[str, Any] | None, names: frozenset[str], unsupported: list[Unsupported]
) -> tuple[Choice, str]:
    if choice is None:
        return "auto", ""
    if isinstance(choice, str):
        if choice in _CHOICES:
            return _CHOICES[choice], ""
        raise _misfit("tool_choice", "none, auto, required or an object that names a function", choice)
    if choice.get("type") in ("allowed_tools", "custom"):
        why = "a choice can only be none, auto, required or one function here"
        unsupported.append(Unsupported("tool_choice", why, "Send only the tools that may be called."))
        return "auto", ""
    function = choice.get("function")
    if choice.get("type") != "function" or not isinstance(function, dict):
        fits = 'an object such as {"type": "function", "function": {"name": "..."}}'
        raise _misfit("tool_choice", fits, choice.get("type"))
    name = function.get("name")
    if not isinstance(name, str) or name not in names:
        raise bad_request(
            "`tool_choice.function.name` is none of the functions in `tools`. Name one of them.",
            "tool_choice.function.name",
        )
    return "named", name


def _strict(tools: list[dict[str, Any]]) -> Iterator[Unsupported]:
    for i, tool in enumerate(tools):
        if isinstance(tool.get("function"), dict) and tool["function"].get("strict"):
            why = "arguments are only made to fit where `tool_choice` is required or names a function"
            yield Unsupported(f"tools[{i}].function.strict", why, "Set it to false.")


def _misfit(param: str, fits: str, got: object) -> ApiError:
    if got is None:
        return bad_request(f"`{param}` is missing. Give {fits}.", param, "missing_required_parameter")
    return bad_request(f"`{param}` must be {fits}.", param)


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    """The schema of a function's arguments; without one, it takes none."""
    return function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}


def _call(name: str) -> dict[str, Any]:
    properties = {"name": {"const": name}, "parameters": {"$ref": f"#/$defs/{name}"}}
    required = ["name", "parameters"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _moved(schema: Any, name: str) -> Any:
    """`schema` with references that still hold when it stands below `$defs`."""
    if isinstance(schema, list):
        return [_moved(item, name) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, name) for key, value in schema.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"#/$defs/{name}{reference[1:]}"
    return moved
