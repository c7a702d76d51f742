"""Assembler: what an engine generated, as the text a client may see.

One per choice; it outlives attempts, so that a stream continued on another endpoint goes on within a
character.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.answers import LogProb
from gateway.streaming.stop import StopMatcher
from inference.detokenizer import Detokenizer
from inference.sink import FinishReason, TokenScore
from inference.tokenizer import ModelTokenizer


class Assembler:
    """Turns token ids or text deltas into certain text, cut at stop strings; keeps the count."""

    __slots__ = ("_detokenizer", "_log_probs", "_parts", "_stop", "_tokenizer", "ids", "stopped")

    def __init__(self, tokenizer: ModelTokenizer, stop: tuple[str, ...], log_probs: bool) -> None:
        self._tokenizer = tokenizer
        self._detokenizer: Detokenizer = tokenizer.detokenizer()
        self._stop = StopMatcher(stop) if stop else None
        self._log_probs: list[LogProb] | None = [] if log_probs else None
        self._parts: list[str] = []
        """Text of the text lanes, to count its tokens at the end."""
        self.ids: list[int] = []
        self.stopped = False
        """A stop string was met; what follows is dropped."""

    @property
    def ends(self) -> bool:
        """The last token is one that ends an answer."""
        return len(self.ids) > 0 and self.ids[-1] in self._tokenizer.end_ids

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> str:
        """Text that has become certain by `ids`."""
        if self.stopped:
            return ""
        self.ids.extend(ids)
        if self._log_probs is not None and log_probs is not None:
            self._remember(ids, log_probs)
        text = self._detokenizer.push(ids)
        return self._cut(text) if self._stop is not None and text else text

    def text(self, delta: str) -> str:
        """Text of a lane that sends text, cut at stop strings."""
        if self.stopped:
            return ""
        self._parts.append(delta)
        return self._cut(delta) if self._stop is not None else delta

    def scores(self, scores: Sequence[TokenScore]) -> None:
        """Log probabilities of the tokens that the next text is made of."""
        if self._log_probs is None or self.stopped:
            return
        for token, log_prob, top in scores:
            if token not in self._tokenizer.end_ids:
                others = [(self._bytes(other), value) for other, value in top]
                self._log_probs.append(LogProb(self._bytes(token), log_prob, others))

    def _bytes(self, token: int) -> bytes:
        """A token's bytes; a server's padded vocabulary holds ids that no tokenizer has."""
        return self._tokenizer.token_bytes(token) if token < self._tokenizer.vocab_size else b""

    def flush(self) -> str:
        """What was held back, once nothing more comes."""
        if self.stopped:
            return ""
        text = self._detokenizer.flush()
        if self._stop is None:
            return text
        return (self._cut(text) if text else "") + ("" if self.stopped else self._stop.flush())

    def take_log_probs(self) -> list[LogProb] | None:
        """Log probabilities of the tokens since the last call; None where they were not asked for."""
        if self._log_probs is None:
            return None
        taken, self._log_probs = self._log_probs, []
        return taken

    def completion_tokens(
        self,
        reason: FinishReason | None = None,
        told: int | None = None,
        limit: int | None = None,
        ended_by_text: bool = False,
    ) -> int:
        """Tokens of the answer; the end token is not part of it.

        Exact where the ids are known, or a text lane's engine `told` its count. An `llmapi` engine tells
        nothing: then the text is tokenised again, and `limit` is what an answer of reason "length" has.
        `ended_by_text`: the server met a stop string, so that no end token is in what it told.
        """
        if not self._parts:
            return len(self.ids) - self.ends
        if told is not None:
            return told - (reason == "stop" and not (self.stopped or ended_by_text))
        if reason == "length" and limit is not None:
            return limit
        counted = self._tokenizer.count("".join(self._parts))
        return counted if limit is None else min(counted, limit)

    def likely_reason(self, limit: int) -> FinishReason:
        """Why an answer ended whose server does not tell: at its limit, if its text has as many tokens."""
        return "length" if self.completion_tokens(limit=limit) >= limit else "stop"

    def said(self) -> str:
        """The text so far, whatever the client was sent of it."""
        return "".join(self._parts) if self._parts else self._tokenizer.decode(self.ids)

    def _cut(self, text: str) -> str:
        assert self._stop is not None
        text, self.stopped = self._stop.push(text)
        return text

    def _remember(self, ids: Sequence[int], log_probs: Sequence[float]) -> None:
        assert self._log_probs is not None
        for token, log_prob in zip(ids, log_probs, strict=False):
            if token not in self._tokenizer.end_ids:
                self._log_probs.append(LogProb(self._tokenizer.token_bytes(token), log_prob))
