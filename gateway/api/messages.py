"""Conversation: the messages of a chat request, as a chat template takes them.

Content parts of text are joined by newlines, as vLLM and trtllm-serve do, and `developer` is the newer word
for `system`, which templates know.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from gateway.api.errors import bad_request
from gateway.api.fields import ContentPart, Message
from gateway.api.tool_messages import CallsBefore
from gateway.api.unserved import Unsupported

KNOWN_KEYS = frozenset(Message.__struct_fields__)
_TEMPLATE_ROLES = {"developer": "system"}
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
"""Those of which a template is told by the same name, and that need no more than a text."""
_MAX_NAME_CHARS = 64


class Conversation(Struct, gc=False):
    """Messages for a chat template, and what of them it would lose."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    tools_at: str | None = None
    """The first field that speaks of tool calls."""
    characters: int | None = None
    """Of all texts, where they were counted."""


def read_conversation(messages: list[Message], raw: list[dict[str, Any]]) -> Conversation:
    """`messages`, checked by role. Raises ApiError 400; `raw` is what the client sent, for unknown keys."""
    if (characters := _plain_characters(messages, raw)) is not None:
        return Conversation(raw, characters=characters)
    conversation = Conversation()
    calls = CallsBefore(conversation.unsupported)
    for i, message in enumerate(messages):
        plain = type(message.content) is str
        content = message.content if plain else _joined(message, f"messages[{i}]", conversation)
        role = message.role
        item: dict[str, Any] = {"role": _TEMPLATE_ROLES.get(role, role), "content": content}
        if message.name is not None:
            item["name"] = message.name
        conversation.messages.append(item)
        if not plain or len(raw[i]) > 2 or role == "tool" or role == "function":
            _read_extras(message, raw[i], f"messages[{i}]", conversation)
            item |= _tool_parts(message, f"messages[{i}]", calls)
    conversation.tools_at = calls.first
    return conversation


def _plain_characters(messages: list[Message], raw: list[dict[str, Any]]) -> int | None:
    """How many characters the texts have, where each message holds a text and its role, as a template takes
    them, and nothing else: most chats do. None: some do not."""
    characters = 0
    for message, said in zip(messages, raw, strict=True):
        content = message.content
        if len(said) != 2 or type(content) is not str or message.role not in _PLAIN_ROLES:
            return None
        characters += len(content)
    return characters


def _joined(message: Message, place: str, conversation: Conversation) -> str:
    """The text of content that is null or an array of parts."""
    if message.content is None:
        if message.role == "assistant" and (message.tool_calls or message.function_call or message.audio):
            return ""
        if message.role == "assistant" and message.refusal is not None:
            return message.refusal
        raise bad_request(
            f"`{place}.content` is missing. Give a string or an array of content parts.",
            f"{place}.content",
            "missing_required_parameter",
        )
    if not message.content:
        raise bad_request(f"`{place}.content` is an empty array. Give a string.", f"{place}.content")
    parts = (
        _text_of(part, f"{place}.content[{j}]", conversation)
        for j, part in enumerate(message.content)
        if type(part) is ContentPart
    )
    return "\n".join(parts)


def _text_of(part: ContentPart, place: str, conversation: Conversation) -> str:
    if part.type not in ("text", "refusal"):
        why = f"content of type {part.type[:_MAX_NAME_CHARS]} is not served here, only text"
        conversation.unsupported.append(Unsupported(place, why))
        return ""
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        param = f"{place}.{part.type}"
        raise bad_request(f"`{param}` is missing. Give a string.", param, "missing_required_parameter")
    return text


def _read_extras(message: Message, raw: dict[str, Any], place: str, conversation: Conversation) -> None:
    """What a message holds besides role and text."""
    if message.role == "tool" and message.tool_call_id is None:
        param = f"{place}.tool_call_id"
        message_text = f"`{param}` is missing. Give the id of the tool call that this message answers."
        raise bad_request(message_text, param, "missing_required_parameter")
    if message.role == "function" and message.name is None:
        param = f"{place}.name"
        raise bad_request(
            f"`{param}` is missing. Give the function's name.", param, "missing_required_parameter"
        )
    if message.role == "function":
        remedy = "Send a message of role tool."
        conversation.unsupported.append(
            Unsupported(f"{place}.role", "functions were replaced by tools", remedy)
        )
    if message.function_call:
        remedy = "Send `tool_calls`."
        param = f"{place}.function_call"
        conversation.unsupported.append(Unsupported(param, "functions were replaced by tools", remedy))
    if message.audio:
        conversation.unsupported.append(Unsupported(f"{place}.audio", "only text messages are served here"))
    conversation.unknown.extend(
        f"{place}.{key[:_MAX_NAME_CHARS]}" for key in raw if key not in KNOWN_KEYS and raw[key] is not None
    )


def _tool_parts(message: Message, place: str, calls: CallsBefore) -> dict[str, Any]:
    """What a template is told of a message besides role, text and name."""
    if message.role == "tool":
        return calls.answered(message, place)
    if message.role != "assistant":
        return {}
    parts: dict[str, Any] = {}
    if message.tool_calls:
        parts["tool_calls"] = calls.made(message, place)
    if message.reasoning_content is not None:
        parts["reasoning_content"] = message.reasoning_content
    return parts
