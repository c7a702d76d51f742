"""Tool messages: the calls that a conversation holds already, as chat templates take them.

Templates want arguments as an object, clients send them as its JSON text. Mistakes are recorded as unserved,
not refused: an OpenAI-HTTP upstream judges for itself.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.api.fields import Message
from gateway.api.unserved import Unsupported


class CallsBefore:
    """The tool calls that were made before a message, by their ids."""

    def __init__(self, unsupported: list[Unsupported]) -> None:
        self.first: str | None = None
        """Where the conversation first speaks of tools."""
        self._unsupported = unsupported
        self._names: dict[str, str] = {}

    def made(self, message: Message, place: str) -> list[dict[str, Any]]:
        """The calls that an assistant's message makes."""
        self.first = self.first or f"{place}.tool_calls"
        calls = (
            self._call(call, f"{place}.tool_calls[{j}]") for j, call in enumerate(message.tool_calls or ())
        )
        return [call for call in calls if call is not None]

    def answered(self, message: Message, place: str) -> dict[str, Any]:
        """What a tool's message says besides its content."""
        self.first = self.first or f"{place}.role"
        call_id = message.tool_call_id or ""
        name = message.name or self._names.get(call_id)
        if call_id not in self._names:
            remedy = "Send the assistant's message with that call before it."
            self._refuse(f"{place}.tool_call_id", "it names no call made before", remedy)
        return {"tool_call_id": call_id} if name is None else {"tool_call_id": call_id, "name": name}

    def _call(self, call: dict[str, Any], place: str) -> dict[str, Any] | None:
        call_id, function = call.get("id"), call.get("function")
        if call.get("type", "function") != "function" or not isinstance(function, dict):
            self._refuse(place, "only calls of functions are served here", "Send a function's call.")
            return None
        if not isinstance(call_id, str):
            self._refuse(f"{place}.id", "it must be a string", "Give the call's id.")
            return None
        name = function.get("name")
        if not isinstance(name, str):
            self._refuse(f"{place}.function.name", "it must be a string", "Give the function's name.")
            return None
        self._names[call_id] = name
        arguments = _object(function.get("arguments"))
        if arguments is None:
            why = "it must be the JSON text of an object"
            self._refuse(f"{place}.function.arguments", why, "Repair it, or send {}.")
            return None
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _refuse(self, param: str, why: str, remedy: str) -> None:
        self._unsupported.append(Unsupported(param, why, remedy))


def _object(arguments: Any) -> dict[str, Any] | None:
    if arguments is None or arguments == "":
        return {}
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
