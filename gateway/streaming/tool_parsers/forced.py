"""Forced calls: what an answer is where guided decoding makes it a call, whatever the model's own form.

`tool_choice` "required" gives an array of `{"name": …, "parameters": {…}}`, a named function its arguments
alone. vLLM guides its answers to the same two forms.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.streaming.reader import Steps
from gateway.streaming.tool_parsers.base import ToolParser


class ForcedCallsParser(ToolParser):
    """At least one call, in an array."""

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.skip_space()
        if not (yield from reader.skip("[")) or not (yield from self._calls_in_list()):
            reader.retreat()
        yield from reader.until(())


class NamedCallParser(ToolParser):
    """One call of `name`: the answer is its arguments."""

    def __init__(self, name: str, names: frozenset[str], make_id: Callable[[], str]) -> None:
        self._name = name
        super().__init__(names, make_id)

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.skip_space()
        if (yield from reader.peek()) == "{":
            reader.passed()
            yield from self._arguments(self._begin(self._name))
            yield from reader.skip_space()
            reader.passed()
        reader.retreat()
        yield from reader.until(())
