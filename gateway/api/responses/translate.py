"""From a Responses body to the chat request that it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.api.chat_messages import ChatMessages
from gateway.api.errors import bad_request, unsupported
from gateway.api.fields import typed
from gateway.api.json_body import BodyLimits, decode_object
from gateway.api.requests import ApiRequest, translated_chat
from gateway.api.responses.fields import (
    FITS,
    Item,
    Part,
    ResponsesBody,
    TextFormat,
    Tool,
    ToolChoice,
)
from gateway.api.translated import Translation
from gateway.api.unknown_keys import refuse_unknown_keys
from gateway.api.unserved import Feature

_WHOLE_CONVERSATION = "answers are not kept here: send the whole conversation in `input`"
NOT_SERVED: Mapping[str, Feature] = {
    "store": Feature("answers are not kept here: send false", (None, False)),
    "previous_response_id": Feature(_WHOLE_CONVERSATION),
    "conversation": Feature(_WHOLE_CONVERSATION),
    "background": Feature("wait for the answer, or stream it", (None, False)),
    "include": Feature("nothing more than the answer is given: remove it", (None, [])),
    "truncation": Feature("an input that is too long is refused, not cut: send disabled", (None, "disabled")),
    "prompt": Feature("prompt templates are not kept here: write it out in `instructions` and `input`"),
    "moderation": Feature("nothing is moderated here: remove it"),
    "context_management": Feature("an input is taken as it is: remove it", (None, [])),
    "prompt_cache_options": Feature("engines keep prefixes by themselves: remove it"),
    "top_logprobs": Feature("log probabilities are served by /v1/chat/completions", (None, 0)),
}
_SAME = ("temperature", "top_p", "service_tier", "user", "safety_identifier", "prompt_cache_key",
         "prompt_cache_retention", "parallel_tool_calls")  # fmt: skip
_ROLES = {"developer": "system"}
"""The newer word is not known to every upstream."""
_TEXTS = frozenset({"input_text", "output_text", "text"})


def parse_responses(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/responses`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    asked = typed(raw, ResponsesBody, fits=FITS)
    refuse_unknown_keys(raw, ResponsesBody)
    _refuse_unserved(asked)
    conversation = _conversation(asked, raw)
    chat: dict[str, Any] = {"model": asked.model, "messages": conversation.messages}
    if asked.stream:
        chat["stream"] = True
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    chat |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
    chat |= _tools(asked, raw) | _style(asked)
    places = {
        **conversation.places,
        "messages": "input",
        "max_completion_tokens": "max_output_tokens",
        "tools": "tools",
        **{f"tools[{i}].function": f"tools[{i}]" for i in range(len(asked.tools or ()))},
        "tool_choice.function": "tool_choice",
        "tool_choice.allowed_tools": "tool_choice",
        "response_format": "text.format",
        "response_format.json_schema": "text.format",
        "verbosity": "text.verbosity",
        "reasoning_effort": "reasoning.effort",
    }
    return translated_chat(chat, Translation(asked, places), limits)


def _refuse_unserved(asked: ResponsesBody) -> None:
    for name, feature in NOT_SERVED.items():
        if getattr(asked, name) not in feature.neutral:
            raise bad_request(f"`{name}` is not served here: {feature.why}.", name, "unsupported_parameter")
    if asked.stream_options is not None and asked.stream_options.include_obfuscation:
        place = "stream_options.include_obfuscation"
        raise bad_request(f"`{place}` is not served here: send false.", place, "unsupported_parameter")


def _conversation(asked: ResponsesBody, raw: dict[str, Any]) -> ChatMessages:
    conversation = ChatMessages()
    if asked.instructions:
        conversation.add("system", asked.instructions, "instructions", "instructions")
    if isinstance(asked.input, str):
        conversation.add("user", asked.input, "input", "input")
        return conversation
    for i, item in enumerate(asked.input):
        _add_item(conversation, item, f"input[{i}]")
        refuse_unknown_keys(raw["input"][i], Item, f"input[{i}]")
    return conversation


def _add_item(conversation: ChatMessages, item: Item, place: str) -> None:
    match item.type or "message":
        case "message":
            role = _given(item.role, f"{place}.role")
            content = _text(_given(item.content, f"{place}.content"), f"{place}.content")
            conversation.add(_ROLES.get(role, role), content, place, f"{place}.content")
        case "function_call":
            call_id = _given(item.call_id, f"{place}.call_id")
            name = _given(item.name, f"{place}.name")
            arguments = _given(item.arguments, f"{place}.arguments")
            conversation.call(call_id, name, arguments, place, "call_id")
        case "function_call_output":
            call_id = _given(item.call_id, f"{place}.call_id")
            output = _text(_given(item.output, f"{place}.output"), f"{place}.output")
            conversation.result(call_id, output, place, "call_id", "output")
        case "reasoning":
            pass  # what was thought for an earlier answer is not part of what a chat template takes
        case other:
            why = f"items of type {other[:64]} are not served here, only messages and function calls"
            raise unsupported(f"{place}.type", why)


def _given(value: Any, place: str) -> Any:
    if value is None:
        fits = FITS["input[]." + place.rpartition(".")[2]]
        raise bad_request(f"`{place}` is missing. Give {fits}.", place, "missing_required_parameter")
    return value


def _text(content: str | list[Part], place: str) -> str:
    """Parts are joined as those of chat messages are."""
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{place}[{j}]") for j, part in enumerate(content))


def _part_text(part: Part, place: str) -> str:
    field = "refusal" if part.type == "refusal" else "text"
    if field == "text" and part.type not in _TEXTS:
        raise unsupported(f"{place}.type", f"content of type {part.type[:64]} is not served here, only text")
    text = part.refusal if field == "refusal" else part.text
    if text is None:
        param = f"{place}.{field}"
        raise bad_request(f"`{param}` is missing. Give a string.", param, "missing_required_parameter")
    return text


def _tools(asked: ResponsesBody, raw: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if asked.tools:
        for i, tool in enumerate(asked.tools):
            _check_function(tool, f"tools[{i}]")
            refuse_unknown_keys(raw["tools"][i], Tool, f"tools[{i}]")
        chat["tools"] = [_chat_tool(tool) for tool in asked.tools]
    choice = asked.tool_choice
    if choice is not None:
        chat["tool_choice"] = _tool_choice(choice) if isinstance(choice, ToolChoice) else choice
    return chat


def _check_function(tool: Tool, place: str) -> None:
    if tool.type != "function":
        raise unsupported(
            f"{place}.type", f"tools of type {tool.type[:64]} are not served here, only functions"
        )
    if not tool.name:
        param = f"{place}.name"
        raise bad_request(
            f"`{param}` is missing. Give the function's name.", param, "missing_required_parameter"
        )


def _chat_tool(tool: Tool) -> dict[str, Any]:
    fields = ("name", "description", "parameters", "strict")
    function = {name: value for name in fields if (value := getattr(tool, name)) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.type == "allowed_tools":
        tools = choice.tools or []
        for i, tool in enumerate(tools):
            _check_function(tool, f"tool_choice.tools[{i}]")
        allowed = {"mode": choice.mode or "auto", "tools": [_chat_tool(tool) for tool in tools]}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    _check_function(Tool(choice.type, choice.name), "tool_choice")
    return {"type": "function", "function": {"name": choice.name}}


def _style(asked: ResponsesBody) -> dict[str, Any]:
    """How the answer is written, and how long the model thinks before."""
    chat: dict[str, Any] = {}
    text, reasoning = asked.text, asked.reasoning
    if text is not None and text.format is not None:
        chat["response_format"] = _response_format(text.format)
    if text is not None and text.verbosity is not None:
        chat["verbosity"] = text.verbosity
    if reasoning is not None and reasoning.effort is not None:
        chat["reasoning_effort"] = reasoning.effort
    return chat


def _response_format(asked: TextFormat) -> dict[str, Any]:
    if asked.type != "json_schema":
        return {"type": asked.type}
    for field in ("name", "schema"):
        if getattr(asked, field) is None:
            param = f"text.format.{field}"
            raise bad_request(
                f"`{param}` is missing. Give {FITS[param]}.", param, "missing_required_parameter"
            )
    fields = ("name", "schema", "strict", "description")
    schema = {name: value for name in fields if (value := getattr(asked, name)) is not None}
    return {"type": "json_schema", "json_schema": schema}
