"""Answer: bodies of whole and streamed answers, in the words of chat or of text completions."""

from __future__ import annotations

import itertools
import time
from typing import Any

from emulator.openai_pieces import Piece

_numbers = itertools.count(1)


class Answer:
    """The bodies of one answer."""

    def __init__(self, model: str, *, chat: bool, tier: str | None = None) -> None:
        self._tier = {} if tier is None else {"service_tier": "default"}
        self._model = model
        self._chat = chat
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{next(_numbers)}"
        self._created = int(time.time())

    def head(self, *, chunk: bool) -> dict[str, Any]:
        name = "text_completion"
        if self._chat:
            name = "chat.completion.chunk" if chunk else "chat.completion"
        return {"id": self._id, "object": name, "created": self._created, "model": self._model, **self._tier}

    def choice(self, index: int, text: str, end: Piece) -> dict[str, Any]:
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        )
        return {"index": index, **said, "logprobs": None, **_ending(end)}

    def opening(self, choices: int) -> dict[str, Any]:
        """The first event: the role of every choice, no text yet."""
        said: dict[str, Any] = {"delta": {"role": "assistant", "content": ""}} if self._chat else {"text": ""}
        empty = [
            {"index": index, **said, "logprobs": None, "finish_reason": None} for index in range(choices)
        ]
        return {**self.head(chunk=True), "choices": empty}

    def chunk(self, piece: Piece) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"content": piece.text}} if self._chat else {"text": piece.text}
        choice = {"index": piece.index, **said, "logprobs": None, **_ending(piece)}
        return {**self.head(chunk=True), "choices": [choice]}


def _ending(piece: Piece) -> dict[str, Any]:
    return {"finish_reason": piece.finish_reason, "stop_reason": piece.stop}


def usage_of(prompt: int, output: int) -> dict[str, int]:
    """Counts of tokens, as OpenAI names them."""
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
