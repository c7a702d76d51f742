"""First call only: what `parallel_tool_calls: false` leaves of an answer."""

from __future__ import annotations

from gateway.streaming.parts import Part, PartParser, ToolCall


class FirstCallOnly:
    """Lets everything through up to a second tool call, and nothing after it."""

    def __init__(self, parser: PartParser) -> None:
        self._parser = parser
        self._over = False

    def push(self, text: str) -> list[Part]:
        """Parts that have become certain by `text`."""
        return [] if self._over else self._cut(self._parser.push(text))

    def flush(self) -> list[Part]:
        """What was held back, once nothing more comes."""
        return [] if self._over else self._cut(self._parser.flush())

    def _cut(self, parts: list[Part]) -> list[Part]:
        for at, part in enumerate(parts):
            if isinstance(part, ToolCall) and part.call > 0:
                self._over = True
                return parts[:at]
        return parts
