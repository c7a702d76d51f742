"""A sink that remembers, and what a finished answer looks like in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from inference.errors import InferenceError
from inference.request import Usage
from inference.sink import FinishReason, TokenScore


class RecordingSink:
    """Keeps every call; `over` is set by the end, whichever it is. A second end fails the test."""

    def __init__(self, on_push: Callable[[], None] = lambda: None) -> None:
        self.heads = 0
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self.deltas: list[str] = []
        self.token_scores: list[TokenScore] = []
        self.embeddings: list[bytes] = []
        self.told: int | None = None
        self.reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.error: InferenceError | None = None
        self.ends = 0
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self._on_push = on_push

    @property
    def text_so_far(self) -> str:
        return "".join(self.deltas)

    def head(self) -> None:
        assert not self.begun.is_set()
        self.heads += 1

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> None:
        self._pushed()
        self.ids += ids
        self.log_probs += log_probs or []

    def text(self, delta: str, tokens: int | None = None) -> None:
        self._pushed()
        if tokens is not None:
            self.told = tokens + (self.told or 0)
        if delta:
            self.deltas.append(delta)

    def scores(self, scores: Sequence[TokenScore]) -> None:
        assert not self.ends, "pushed after the end"
        self.token_scores += scores

    def vectors(self, vectors: Sequence[bytes]) -> None:
        self._pushed()
        self.embeddings += vectors

    def data(self, data: bytes) -> None:
        raise AssertionError(f"Triton lanes push no bytes: {data!r}")

    def flush(self) -> None: ...

    def end(self, reason: FinishReason | None, usage: Usage, stop: str | None = None) -> None:
        self._finish()
        self.reason, self.usage = reason, usage

    def lost(self, error: InferenceError) -> None:
        self._finish()
        self.error = error

    def _pushed(self) -> None:
        assert not self.ends, "pushed after the end"
        self.begun.set()
        self._on_push()

    def _finish(self) -> None:
        self.ends += 1
        assert self.ends == 1, "an answer ends once"
        self.begun.set()
        self.over.set()
