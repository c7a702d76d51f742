"""Hermes: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes 2 and Qwen 2.5 and 3 write it.

Source of the form: NousResearch/Hermes-Function-Calling; vLLM `--tool-call-parser hermes`.
"""

from __future__ import annotations

from gateway.streaming.reader import Steps
from gateway.streaming.tool_parsers.base import ToolParser

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MARKS = (OPEN, CLOSE)


class HermesParser(ToolParser):
    """Calls anywhere in the text, each in its own marks; a missing closing mark does no harm."""

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.drop_space((OPEN,))
        while (yield from reader.until((OPEN,))) is not None:
            yield from reader.skip_space()
            if (yield from self._call(MARKS)):
                yield from self._close()
            else:
                reader.give_back(OPEN)

    def _close(self) -> Steps[None]:
        """Pass the closing mark, with further calls and stray brackets before it and white space after it."""
        reader = self._reader
        while True:
            yield from reader.skip_space()
            if (yield from reader.word(CLOSE)):
                yield from reader.skip_space()
                reader.passed()
                return
            stray = yield from reader.skip("}")
            if not stray and not (yield from self._call(MARKS)):
                reader.retreat()
                return
