"""ChatMessages: another API's conversation as chat messages that know where they came from."""

from __future__ import annotations

from typing import Any


class ChatMessages:
    """Chat messages so far, and the client's path of each."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: dict[str, str] = {}
        """The client's paths by the chat request's, as `Translation` takes them."""

    def add(self, role: str, content: str, place: str, content_place: str) -> None:
        """What somebody says."""
        self._append({"role": role, "content": content}, place, content_place)

    def call(self, call_id: str, name: str, arguments: str, place: str, id_field: str) -> None:
        """A tool call of the assistant; it belongs to what the assistant said last."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self._append({"role": "assistant", "content": None}, place, place)
        calls = self.messages[-1].setdefault("tool_calls", [])
        all_calls = f"messages[{len(self.messages) - 1}].tool_calls"
        self.places.setdefault(all_calls, place)
        at = f"{all_calls}[{len(calls)}]"
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
        self.places |= {at: place, f"{at}.function": place, f"{at}.id": f"{place}.{id_field}"}

    def result(self, call_id: str, content: str, place: str, id_field: str, content_field: str) -> None:
        """What a tool answered."""
        at = f"messages[{len(self.messages)}]"
        message = {"role": "tool", "tool_call_id": call_id, "content": content}
        self._append(message, place, f"{place}.{content_field}")
        self.places |= {f"{at}.role": place, f"{at}.tool_call_id": f"{place}.{id_field}"}

    def _append(self, message: dict[str, Any], place: str, content_place: str) -> None:
        at = f"messages[{len(self.messages)}]"
        self.messages.append(message)
        self.places |= {at: place, f"{at}.content": content_place}
