"""Llama 3 JSON: `{"name": …, "parameters": {…}}`, several divided by `;`, after `<|python_tag|>` or nothing.

Source of the form: Meta's prompt format of Llama 3.1; vLLM `--tool-call-parser llama3_json`.
"""

from __future__ import annotations

from gateway.streaming.reader import Steps
from gateway.streaming.tool_parsers.base import ToolParser

TAG = "<|python_tag|>"
MARKS = (TAG,)


class Llama3JsonParser(ToolParser):
    """Calls at the beginning of the answer, of known tools only, and of any tool after the tag.

    Servers of text drop the tag, so that an answer which begins with a known tool's call is one.
    """

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.skip_space()
        if (yield from self._call(known_only=True)):
            yield from self._further()
        else:
            reader.retreat()
            yield from reader.drop_space(MARKS)
        while (yield from reader.until(MARKS)) is not None:
            yield from reader.skip_space()
            if (yield from self._call()):
                yield from self._further()
            else:
                reader.give_back(TAG)

    def _further(self) -> Steps[None]:
        """Pass the calls that follow one, and the white space after them."""
        reader = self._reader
        while True:
            yield from reader.skip_space()
            reader.passed()
            yield from reader.skip(";,")
            yield from reader.skip_space()
            yield from reader.word(TAG)
            yield from reader.skip_space()
            if not (yield from self._call()):
                reader.retreat()
                return
