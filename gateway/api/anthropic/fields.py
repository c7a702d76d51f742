"""Fields of `POST /v1/messages`, and what to say when a value does not fit.

Content blocks are one struct, whatever their type: which fields a type needs is asked where it is translated.
`cache_control` is taken and needs nothing done: engines keep prefixes by themselves.
Source: Anthropic's API reference, Messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct


class Block(Struct):
    """One content block."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    citations: list[dict[str, Any]] | None = None
    caller: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class Message(Struct):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class Tool(Struct):
    """A tool of the client's."""

    name: Annotated[str, Meta(min_length=1)]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Struct):
    """Whether, and which, tools are used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    """Whether the client is shown what the model thinks. A budget of its own cannot be kept here."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class Metadata(Struct):
    """Of the request."""

    user_id: str | None = None


class OutputFormat(Struct):
    """What the answer's text must be."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct):
    """How the answer is made."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessagesBody(Struct, kw_only=True):
    """The body of `POST /v1/messages`, and without `max_tokens` that of `POST /v1/messages/count_tokens`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    system: str | list[Block] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None

    @property
    def shows_thinking(self) -> bool:
        """The client wants to see what the model thinks."""
        thinking = self.thinking
        return thinking is not None and thinking.type != "disabled" and thinking.display != "omitted"


_STRING = "a string"
_BOOLEAN = "true or false"
_OBJECT = "an object"
_BLOCKS = "a string or an array of content blocks"
_BLOCK: Mapping[str, str] = {
    "": 'a content block such as {"type": "text", "text": "..."}',
    ".type": "a string such as text",
    ".text": _STRING,
    ".id": _STRING,
    ".name": "a tool's name",
    ".input": _OBJECT,
    ".tool_use_id": "a string: the id of the tool use that is answered",
    ".content": _BLOCKS,
    ".is_error": _BOOLEAN,
    ".thinking": _STRING,
    ".signature": _STRING,
    ".data": _STRING,
    ".citations": "an array of objects",
    ".citations[]": _OBJECT,
    ".caller": _OBJECT,
    ".cache_control": _OBJECT,
}

FITS: Mapping[str, str] = {
    "model": "a model's name of 1 to 256 characters; GET /v1/models lists them",
    "messages": "an array of at least one message",
    "messages[]": "an object with role and content",
    "messages[].role": "user or assistant; a system prompt goes into `system`",
    "messages[].content": _BLOCKS,
    "max_tokens": "an integer of at least 1",
    "system": "a string or an array of text blocks",
    "stop_sequences": "an array of up to 4 strings",
    "stop_sequences[]": _STRING,
    "temperature": "a number from 0 to 1",
    "top_p": "a number above 0 and up to 1",
    "top_k": "an integer of at least 0",
    "stream": _BOOLEAN,
    "tools": "an array of tools",
    "tools[]": "an object with name and input_schema",
    "tools[].name": "a tool's name",
    "tools[].type": "custom",
    "tools[].description": _STRING,
    "tools[].input_schema": "a JSON Schema",
    "tools[].strict": _BOOLEAN,
    "tools[].cache_control": _OBJECT,
    "tool_choice": 'an object such as {"type": "auto"}',
    "tool_choice.type": "one of auto, any, tool, none",
    "tool_choice.name": "a tool's name",
    "tool_choice.disable_parallel_tool_use": _BOOLEAN,
    "thinking": 'an object such as {"type": "disabled"}',
    "thinking.type": "one of enabled, disabled, adaptive",
    "thinking.budget_tokens": "an integer of at least 1024",
    "thinking.display": "summarized or omitted",
    "metadata": "an object with user_id",
    "metadata.user_id": _STRING,
    "service_tier": "auto or standard_only",
    "output_config": 'an object such as {"effort": "low"}',
    "output_config.effort": "one of low, medium, high, xhigh, max",
    "output_config.format": 'an object such as {"type": "json_schema", "schema": {}}',
    "output_config.format.type": "json_schema",
    "output_config.format.schema": "a JSON Schema",
    "cache_control": _OBJECT,
}
"""What fits a field, by its path without indexes; blocks are in `BLOCK_FITS`."""


class _BlockFits(dict[str, str]):
    """Blocks hold blocks, so that their paths have no end."""

    def __missing__(self, path: str) -> str:
        _, _, field = path.rpartition("[]")
        if field not in _BLOCK and (start := path.rfind(".citations")) >= 0:
            field = path[start:]
        return _BLOCK[field]


BLOCK_FITS: Mapping[str, str] = _BlockFits(FITS)
