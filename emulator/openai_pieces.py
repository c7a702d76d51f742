"""Piece: new text of one choice of an answer, as the tokens of an engine make it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emulator.engine import EngineOutput
from emulator.engine.tokenizer import EngineTokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(slots=True)
class Piece:
    """New text of one choice, or its end, with the exact token counts so far."""

    index: int
    text: str = ""
    finish_reason: str | None = None
    output_tokens: int = 0
    stop: str | None = None
    """The stop string that ended it, which vLLM tells as `stop_reason`."""


class ChoiceText:
    """Turns the tokens of one choice into text: whole characters only, nothing past a stop string."""

    def __init__(self, index: int, tokenizer: EngineTokenizer, stops: Sequence[str]) -> None:
        self.index = index
        self._tokenizer = tokenizer
        self._stops = stops
        self._tokens: list[int] = []
        self._sent = 0
        self._ended = False

    def add(self, output: EngineOutput) -> Piece:
        """The piece that follows from one output; empty while a character or stop string may be open."""
        if self._ended:
            return Piece(self.index, output_tokens=self._counted())
        self._tokens += output.token_ids
        text = self._tokenizer.decode(self._tokens)
        met = min(((at, stop) for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        reason: str | None = output.finish_reason
        if met is not None:
            text, reason, self._ended = text[: met[0]], "stop", True
        elif not output.final:
            text = text.rstrip(_REPLACEMENT)
            text = text[: len(text) - _open_tail(text, self._stops)]
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return Piece(self.index, new, reason, self._counted(), met and met[1])

    def _counted(self) -> int:
        """Tokens of the answer; the end token is none of it."""
        return len(self._tokens) - (self._tokens[-1:] == [self._tokenizer.eos_id])


def _open_tail(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max(lengths, default=0)
