"""From a Messages body to the chat request that it stands for."""

from __future__ import annotations

from typing import Any

from gateway.api.anthropic.fields import (
    BLOCK_FITS,
    FITS,
    Block,
    Message,
    MessagesBody,
    Tool,
    ToolChoice,
)
from gateway.api.chat_messages import ChatMessages
from gateway.api.errors import ApiError, bad_request, unsupported
from gateway.api.fields import typed
from gateway.api.json_body import BodyLimits, decode_object
from gateway.api.requests import ApiRequest, translated_chat
from gateway.api.sse import encode
from gateway.api.translated import Translation
from gateway.api.unknown_keys import refuse_unknown_keys

_SAME = ("temperature", "top_p")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_EFFORTS = {"max": "xhigh"}
_PLACES = {
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "tool_choice.function": "tool_choice",
}


def parse_messages(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/messages`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    asked = typed(raw, MessagesBody, fits=BLOCK_FITS)
    if asked.max_tokens is None:
        raise _missing("max_tokens")
    return _translated(asked, raw, limits)


def parse_count(body: bytes, limits: BodyLimits) -> ApiRequest:
    """The body of `POST /v1/messages/count_tokens`. Raises ApiError 400 or 413, nothing else."""
    raw = decode_object(body, limits)
    return _translated(typed(raw, MessagesBody, fits=BLOCK_FITS), raw, limits)


def _translated(asked: MessagesBody, raw: dict[str, Any], limits: BodyLimits) -> ApiRequest:
    conversation = _conversation(asked)
    refuse_unknown_keys(raw, MessagesBody)
    chat: dict[str, Any] = {"model": asked.model, "messages": conversation.messages}
    if asked.stream:
        chat["stream"] = True
    if asked.max_tokens is not None:
        chat["max_completion_tokens"] = asked.max_tokens
    chat |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
    if asked.top_k:
        chat["top_k"] = asked.top_k
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    if asked.metadata is not None and asked.metadata.user_id is not None:
        chat["user"] = asked.metadata.user_id
    if asked.service_tier is not None:
        chat["service_tier"] = _TIERS[asked.service_tier]
    chat |= _tools(asked, raw) | _style(asked)
    places = {**_PLACES, **conversation.places}
    for i in range(len(asked.tools or ())):
        places |= {f"tools[{i}].function": f"tools[{i}]"}
        places |= {f"tools[{i}].function.parameters": f"tools[{i}].input_schema"}
    if chat.get("reasoning_effort") == "none":
        places["reasoning_effort"] = "thinking"
    return translated_chat(chat, Translation(asked, places), limits)


def _conversation(asked: MessagesBody) -> ChatMessages:
    conversation = ChatMessages()
    if asked.system:
        conversation.add("system", _text(asked.system, "system"), "system", "system")
    for i, message in enumerate(asked.messages):
        place = f"messages[{i}]"
        if isinstance(message.content, str):
            conversation.add(message.role, message.content, place, f"{place}.content")
        elif message.role == "user":
            _add_user(conversation, message.content, f"{place}.content")
        else:
            _add_assistant(conversation, message.content, f"{place}.content")
    _refuse_prefill(asked.messages)
    return conversation


def _refuse_prefill(messages: list[Message]) -> None:
    """Chat templates begin an answer anew; what should only be continued would be answered instead."""
    if messages[-1].role == "assistant":
        place = f"messages[{len(messages) - 1}].role"
        raise bad_request(
            f"`{place}` is assistant: beginning the answer is not served here. End with the user's message.",
            place,
            "unsupported_parameter",
        )


def _add_user(conversation: ChatMessages, blocks: list[Block], place: str) -> None:
    """Text and results in their order; neighbouring texts are one message."""
    texts: list[str] = []
    for j, block in enumerate(blocks):
        at = f"{place}[{j}]"
        if block.type != "tool_result":
            texts.append(_block_text(block, at))
            continue
        if texts:
            conversation.add("user", "\n".join(texts), place, place)
            texts = []
        call_id = _given(block.tool_use_id, f"{at}.tool_use_id")
        content = _text(block.content or "", f"{at}.content")
        content = f"Error: {content}" if block.is_error else content
        conversation.result(call_id, content, at, "tool_use_id", "content")
    if texts or not blocks:
        conversation.add("user", "\n".join(texts), place, place)


def _add_assistant(conversation: ChatMessages, blocks: list[Block], place: str) -> None:
    """Text, then what it called. What was thought before is not part of what a chat template takes."""
    said = [(f"{place}[{j}]", block) for j, block in enumerate(blocks)]
    kept = [(at, block) for at, block in said if block.type not in ("thinking", "redacted_thinking")]
    texts = [_block_text(block, at) for at, block in kept if block.type != "tool_use"]
    calls = [(at, block) for at, block in kept if block.type == "tool_use"]
    if texts or not calls:
        conversation.add("assistant", "\n".join(texts), place, place)
    for at, block in calls:
        call_id, name = _given(block.id, f"{at}.id"), _given(block.name, f"{at}.name")
        arguments = encode(_given(block.input, f"{at}.input")).decode()
        conversation.call(call_id, name, arguments, at, "id")


def _text(content: str | list[Block], place: str) -> str:
    """Blocks are joined as the parts of chat messages are."""
    if isinstance(content, str):
        return content
    return "\n".join(_block_text(block, f"{place}[{j}]") for j, block in enumerate(content))


def _block_text(block: Block, place: str) -> str:
    if block.type != "text":
        kind = block.type[:64]
        raise unsupported(f"{place}.type", f"content of type {kind} is not served here, only text")
    text: str = _given(block.text, f"{place}.text")
    return text


def _given(value: Any, place: str) -> Any:
    if value is None:
        raise _missing(place)
    return value


def _tools(asked: MessagesBody, raw: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if asked.tools:
        for i, tool in enumerate(asked.tools):
            _check_tool(tool, f"tools[{i}]")
            refuse_unknown_keys(raw["tools"][i], Tool, f"tools[{i}]")
        chat["tools"] = [_chat_tool(tool) for tool in asked.tools]
    if asked.tool_choice is not None:
        chat["tool_choice"] = _tool_choice(asked.tool_choice)
        if asked.tool_choice.disable_parallel_tool_use is not None:
            chat["parallel_tool_calls"] = not asked.tool_choice.disable_parallel_tool_use
    return chat


def _check_tool(tool: Tool, place: str) -> None:
    if tool.type not in (None, "custom"):
        why = f"tools of type {tool.type[:64]} are not served here, only your own"
        raise unsupported(f"{place}.type", why)
    if tool.input_schema is None:
        raise bad_request(
            f"`{place}.input_schema` is missing. Give {FITS['tools[].input_schema']}.",
            f"{place}.input_schema",
            "missing_required_parameter",
        )


def _chat_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return _CHOICES[choice.type]
    return {"type": "function", "function": {"name": _given(choice.name, "tool_choice.name")}}


def _style(asked: MessagesBody) -> dict[str, Any]:
    """How the answer is written, and how long the model thinks before."""
    chat: dict[str, Any] = {}
    config = asked.output_config
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = _EFFORTS.get(config.effort, config.effort)
    if config is not None and config.format is not None:
        schema = {"name": "answer", "schema": config.format.schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    if asked.thinking is not None:
        _check_budget(asked)
        if asked.thinking.type == "disabled":
            chat["reasoning_effort"] = "none"
    return chat


def _check_budget(asked: MessagesBody) -> None:
    """As Anthropic does."""
    thinking = asked.thinking
    assert thinking is not None
    place = "thinking.budget_tokens"
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise _missing(place)
    if thinking.budget_tokens is None or asked.max_tokens is None:
        return
    if thinking.budget_tokens >= asked.max_tokens:
        raise bad_request(f"`{place}` must be below `max_tokens`. Lower it, or raise `max_tokens`.", place)


def _missing(place: str) -> ApiError:
    fits = BLOCK_FITS[place] if place in FITS else BLOCK_FITS["[]." + place.rpartition(".")[2]]
    return bad_request(f"`{place}` is missing. Give {fits}.", place, "missing_required_parameter")
