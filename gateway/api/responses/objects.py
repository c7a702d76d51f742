"""Response objects, and the items of their output. Source: openai-openapi, `Response` and `OutputItem`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from gateway.api.answers import Choice
from gateway.api.errors import ErrorShape
from gateway.api.finish import FinishReason
from gateway.api.responses.fields import ResponsesBody, Tool
from inference.request import Usage

Status = Literal["in_progress", "completed", "incomplete"]
_INCOMPLETE: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response_object(request_id: str, created: int, body: ResponsesBody, tier: str | None) -> dict[str, Any]:
    """What a response says from its beginning: mostly what was asked for."""
    reasoning, text = body.reasoning, body.text
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": reasoning and reasoning.effort, "summary": reasoning and reasoning.summary},
        "safety_identifier": body.safety_identifier,
        "service_tier": tier,
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {
            "format": _given(text.format) if text and text.format else {"type": "text"},
            "verbosity": (text and text.verbosity) or "medium",
        },
        "tool_choice": _choice(body),
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "metadata": body.metadata or {},
        **({} if body.user is None else {"user": body.user}),
    }


def ended(
    response: dict[str, Any], output: Sequence[dict[str, Any]], reason: FinishReason, usage: Usage
) -> dict[str, Any]:
    """The response at its end."""
    incomplete = _INCOMPLETE.get(reason)
    return {
        **response,
        "status": item_status(reason),
        "incomplete_details": None if incomplete is None else {"reason": incomplete},
        "output": output,
        "usage": usage_object(usage),
    }


def failed(response: dict[str, Any], output: Sequence[dict[str, Any]], shape: ErrorShape) -> dict[str, Any]:
    """The response that broke."""
    code = {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(shape.status, "server_error")
    error = {"code": code, "message": shape.message or ""}
    return {**response, "status": "failed", "error": error, "output": output}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Tokens in this API's words; a count the server did not tell is 0."""
    given, answered = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": given + answered,
    }


def item_status(reason: FinishReason) -> Status:
    """Of the last item, and of the response."""
    return "incomplete" if reason in _INCOMPLETE else "completed"


def items_of(request_id: str, choice: Choice) -> list[dict[str, Any]]:
    """The output of an answer that is not streamed; what was cut off is the last item."""
    items = list(_items(request_id, choice))
    items[-1]["status"] = item_status(choice.finish_reason)
    return items


def _items(request_id: str, choice: Choice) -> Iterator[dict[str, Any]]:
    index = 0
    if choice.reasoning:
        yield reasoning_item(request_id, index, choice.reasoning, "completed")
        index += 1
    if choice.text or not (choice.reasoning or choice.tool_calls):
        yield message_item(request_id, index, choice.text, "completed")
        index += 1
    for number, call in enumerate(choice.tool_calls, index):
        yield call_item(request_id, number, call.id, call.name, call.arguments, "completed")


def message_item(request_id: str, index: int, text: str | None, status: Status) -> dict[str, Any]:
    """What the model answers; None: it has just begun."""
    return {
        "id": f"msg_{request_id}_{index}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [] if text is None else [text_part(text)],
    }


def reasoning_item(request_id: str, index: int, text: str | None, status: Status) -> dict[str, Any]:
    """What the model thinks; None: it has just begun."""
    return {
        "id": f"rs_{request_id}_{index}",
        "type": "reasoning",
        "summary": [],
        "status": status,
        "content": [] if text is None else [reasoning_part(text)],
    }


def call_item(
    request_id: str, index: int, call_id: str, name: str, arguments: str, status: Status
) -> dict[str, Any]:
    """A function that the model wants called."""
    return {
        "id": f"fc_{request_id}_{index}",
        "type": "function_call",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


def _tool(tool: Tool) -> dict[str, Any]:
    said = {"type": tool.type, "name": tool.name, "parameters": tool.parameters, "strict": bool(tool.strict)}
    return said if tool.description is None else {**said, "description": tool.description}


def _choice(body: ResponsesBody) -> Any:
    choice = body.tool_choice
    return choice if isinstance(choice, str) else "auto" if choice is None else _given(choice)


def _given(value: msgspec.Struct) -> dict[str, Any]:
    """A struct's fields that are set."""
    told: dict[str, Any] = msgspec.to_builtins(value)
    return {
        key: [_without_null(one) for one in item] if key == "tools" else item
        for key, item in told.items()
        if item is not None
    }


def _without_null(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}
