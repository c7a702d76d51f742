"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, since v11 `[TOOL_CALLS]name[ARGS]{…}` for each.

Templates of this family want call ids of nine letters and digits. Source of the forms: mistral-common's
tokenizers v3 to v13; vLLM `--tool-call-parser mistral`.
"""

from __future__ import annotations

from gateway.streaming.reader import Steps
from gateway.streaming.tool_parsers.base import MAX_NAME_CHARACTERS, ToolParser

CALLS = "[TOOL_CALLS]"
ARGS = "[ARGS]"
CALL_ID = "[CALL_ID]"
MARKS = (CALLS, ARGS, CALL_ID)
ID_CHARACTERS = 9


class MistralParser(ToolParser):
    """Calls after the mark; without it, which servers of text drop, calls of known tools at the beginning."""

    def _read(self) -> Steps[None]:
        reader = self._reader
        yield from reader.skip_space()
        unmarked = yield from self._form(known_only=True)
        while unmarked:
            yield from self._space()
            unmarked = yield from self._form(known_only=True)
        reader.retreat()
        yield from reader.drop_space((CALLS,))
        while (yield from reader.until((CALLS,))) is not None:
            yield from reader.skip_space()
            if (yield from self._form(known_only=False)):
                yield from self._space()
            else:
                reader.give_back(CALLS)

    def _form(self, *, known_only: bool) -> Steps[bool]:
        """Pass calls in either form; False, and nothing is passed, where there are none."""
        reader = self._reader
        char = yield from reader.peek()
        if char == "{":
            return (yield from self._call(known_only=known_only))
        if (yield from reader.skip("[")):
            return (yield from self._calls_in_list(known_only=known_only))
        return (yield from self._named(known_only=known_only))

    def _named(self, *, known_only: bool) -> Steps[bool]:
        reader = self._reader
        name = yield from reader.run(_fits_name, MAX_NAME_CHARACTERS)
        if not name or (known_only and name not in self._names):
            return False
        call_id = None
        yield from reader.skip_space()
        if (yield from reader.word(CALL_ID)):
            call_id = yield from reader.run(str.isalnum, ID_CHARACTERS)
        if (yield from reader.word(ARGS)):
            yield from reader.skip_space()
        if (yield from reader.peek()) != "{":
            return False
        reader.passed()
        told = call_id is not None and len(call_id) == ID_CHARACTERS
        yield from self._arguments(self._begin(name, call_id if told else None), (CALLS,))
        return True

    def _space(self) -> Steps[None]:
        """White space after a call is not part of the text."""
        yield from self._reader.skip_space()
        self._reader.passed()


def _fits_name(char: str) -> bool:
    return char.isalnum() or char in "_-.:/"
