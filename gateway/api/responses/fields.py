"""Fields of `POST /v1/responses`, and what to say when a value does not fit.

Items and content parts are one struct each, whatever their type: which fields a type needs is asked where it
is translated. Source: openai-openapi, `CreateResponse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.api.fields import ServiceTier


class Part(Struct):
    """One part of an item's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class Item(Struct):
    """One item of the conversation; without a type it is a message."""

    type: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    summary: list[dict[str, Any]] | None = None
    encrypted_content: str | None = None


class Tool(Struct):
    """A function that the model may call."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Struct):
    """One function, or the functions allowed."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[Tool] | None = None


class TextFormat(Struct):
    """What the answer's text must be."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextSettings(Struct):
    """How the answer is written."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(Struct):
    """How the model thinks. Thinking is shown whole, in `content`: nothing here makes summaries."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(Struct):
    """What a stream carries besides the answer."""

    include_obfuscation: bool | None = None


class ResponsesBody(Struct, kw_only=True):
    """The body of `POST /v1/responses`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    metadata: dict[str, str] | None = None
    service_tier: ServiceTier | None = None
    user: str | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    context_management: list[dict[str, Any]] | None = None
    prompt_cache_options: dict[str, Any] | None = None


_STRING = "a string"
_BOOLEAN = "true or false"
_OBJECT = "an object"
_OBJECTS = "an array of objects"
_TEXT_OR_PARTS = "a string or an array of content parts"
_PART: Mapping[str, str] = {
    "": 'an object such as {"type": "input_text", "text": "..."}',
    ".type": "a string such as input_text",
    ".text": _STRING,
    ".refusal": _STRING,
    ".annotations": _OBJECTS,
    ".annotations[]": _OBJECT,
    ".logprobs": _OBJECTS,
    ".logprobs[]": _OBJECT,
}
_TOOL: Mapping[str, str] = {
    "": "an object with type and name",
    ".type": "a string: function",
    ".name": "a function's name",
    ".description": _STRING,
    ".parameters": "a JSON Schema",
    ".strict": _BOOLEAN,
}

FITS: Mapping[str, str] = {
    "model": "a model's name of 1 to 256 characters; GET /v1/models lists them",
    "input": "a string or an array of at least one item",
    "input[]": "an item such as a message with role and content",
    "input[].type": "a string such as message",
    "input[].role": "one of user, assistant, system, developer",
    "input[].content": _TEXT_OR_PARTS,
    **{f"input[].content[]{field}": fits for field, fits in _PART.items()},
    "input[].call_id": "a string: the id of the function call",
    "input[].name": "a function's name",
    "input[].arguments": "a string that holds a JSON object",
    "input[].output": _TEXT_OR_PARTS,
    **{f"input[].output[]{field}": fits for field, fits in _PART.items()},
    "input[].id": _STRING,
    "input[].status": _STRING,
    "input[].phase": _STRING,
    "input[].summary": _OBJECTS,
    "input[].summary[]": _OBJECT,
    "input[].encrypted_content": _STRING,
    "instructions": _STRING,
    "max_output_tokens": "an integer of at least 1",
    "temperature": "a number from 0 to 2",
    "top_p": "a number above 0 and up to 1",
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "stream_options.include_obfuscation": _BOOLEAN,
    "tools": _OBJECTS,
    **{f"tools[]{field}": fits for field, fits in _TOOL.items()},
    "tool_choice": "none, auto, required or an object that names a function",
    "tool_choice.type": "function or allowed_tools",
    "tool_choice.name": "a function's name",
    "tool_choice.mode": "auto or required",
    "tool_choice.tools": _OBJECTS,
    **{f"tool_choice.tools[]{field}": fits for field, fits in _TOOL.items()},
    "parallel_tool_calls": _BOOLEAN,
    "max_tool_calls": "an integer of at least 1",
    "text": 'an object such as {"format": {"type": "text"}}',
    "text.format": 'an object such as {"type": "text"}',
    "text.format.type": "one of text, json_object, json_schema",
    "text.format.name": "a name for the schema",
    "text.format.schema": "a JSON Schema",
    "text.format.strict": _BOOLEAN,
    "text.format.description": _STRING,
    "text.verbosity": "one of low, medium, high",
    "reasoning": 'an object such as {"effort": "low"}',
    "reasoning.effort": _STRING,
    "reasoning.summary": "one of auto, concise, detailed",
    "reasoning.generate_summary": "one of auto, concise, detailed",
    "metadata": "an object whose values are strings",
    "service_tier": "one of auto, default, flex, scale, priority, fast",
    "user": _STRING,
    "safety_identifier": "a string of up to 64 characters",
    "prompt_cache_key": _STRING,
    "prompt_cache_retention": "one of in_memory, 24h",
    "store": _BOOLEAN,
    "background": _BOOLEAN,
    "truncation": "one of auto, disabled",
    "include": "an array of strings",
    "include[]": _STRING,
    "top_logprobs": "an integer from 0 to 20",
    "previous_response_id": _STRING,
    "conversation": "a string or an object",
    "prompt": _OBJECT,
    "moderation": _OBJECT,
    "context_management": _OBJECTS,
    "context_management[]": _OBJECT,
    "prompt_cache_options": _OBJECT,
}
"""What fits a field, by its path without indexes."""
