"""Assembler: what an engine generated, as the text a client may see.

One per choice; it outlives attempts, so that a stream continued on another endpoint goes on within a
character.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api.answers import LogProb
from gateway.api.options import ApiOptions
from gateway.streaming.stop import StopMatcher
from inference.detokenizer import Detokenizer
from inference.sink import FinishReason, TokenScore
from inference.tokenizer import ModelTokenizer


class Assembler:
    """Turns token ids or text deltas into certain text, cut at stop strings; keeps the count."""

    __slots__ = (
        "_detokenizer",
        "_end_ids",
        "_log_probs",
        "_may_end",
        "_parts",
        "_silent_ids",
        "_stop",
        "_tokenizer",
        "_told",
        "ids",
        "stopped",
    )

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        stop: tuple[str, ...],
        log_probs: bool,
        options: ApiOptions | None = None,
        marks: frozenset[str] = frozenset(),
    ) -> None:
        """`marks`: special tokens that are part of the text, because a parser reads them."""
        self._tokenizer = tokenizer
        self._detokenizer: Detokenizer = tokenizer.detokenizer(
            options is None or options.skip_special_tokens, marks
        )
        self._stop = StopMatcher(stop, options is not None and options.include_stop) if stop else None
        self._end_ids = tokenizer.end_ids
        """Tokens that end the answer and are no part of it."""
        self._silent_ids: frozenset[int] = frozenset()
        """Those of them that would have text."""
        if options is not None:
            self._silent_ids = frozenset(() if options.include_stop else options.stop_token_ids)
            if not options.skip_special_tokens:
                self._silent_ids |= tokenizer.end_ids
            if options.ignore_eos:
                self._end_ids = frozenset()
                self._silent_ids -= tokenizer.end_ids.difference(options.stop_token_ids)
            self._end_ids |= self._silent_ids
        self._may_end = bool(stop or self._silent_ids)
        """The answer may end before the engine's own end token."""
        self._log_probs: list[LogProb] | None = [] if log_probs else None
        self._parts: list[str] = []
        """Text of the text lanes, to count its tokens at the end."""
        self._told: int | None = None
        """Tokens of which a text lane's server told so far."""
        self.ids: list[int] = []
        self.stopped = False
        """A stop string was met; what follows is dropped."""

    @property
    def ends(self) -> bool:
        """The last token is one that ends an answer."""
        return len(self.ids) > 0 and self.ids[-1] in self._end_ids

    @property
    def stopped_at(self) -> str | None:
        """The stop string that was met."""
        return None if self._stop is None else self._stop.met

    def tokens(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> str:
        """Text that has become certain by `ids`."""
        if self._may_end:
            return self._one_by_one(ids, log_probs)
        self.ids.extend(ids)
        if self._log_probs is not None and log_probs is not None:
            self._remember(ids, log_probs)
        return self._detokenizer.push(ids)

    def _one_by_one(self, ids: Sequence[int], log_probs: Sequence[float] | None) -> str:
        """As `tokens`, where the answer may end within `ids`: what follows its end is not counted either."""
        parts = []
        for at, token in enumerate(ids):
            if self.stopped:
                break
            self.ids.append(token)
            if self._log_probs is not None and log_probs is not None:
                self._remember((token,), log_probs[at : at + 1])
            if token in self._silent_ids:
                continue
            text = self._detokenizer.push((token,))
            parts.append(self._cut(text) if self._stop is not None and text else text)
        return "".join(parts)

    def text(self, delta: str, tokens: int | None = None) -> str:
        """Text of a lane that sends text, cut at stop strings."""
        if self.stopped:
            return ""
        if tokens is not None:
            self._told = tokens + (self._told or 0)
        self._parts.append(delta)
        if self._stop is None:
            return delta
        text = self._cut(delta)
        if self.stopped:
            self._parts[-1] = delta[: self._stop.read]
        return text

    def scores(self, scores: Sequence[TokenScore]) -> None:
        """Log probabilities of the tokens that the next text is made of."""
        if self._log_probs is None or self.stopped:
            return
        for token, log_prob, top in scores:
            if token not in self._end_ids:
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
        counts_end: bool = False,
    ) -> int:
        """Tokens of the answer; the end token is not part of it.

        Exact where the ids are known, or a text lane's engine `told` its count; some engines count the end
        token too, always (`counts_end`) or as the text shows. An `llmapi` engine tells nothing, and none
        tells where a stop string ends: then the text is tokenised again. `limit` is what an answer of reason
        "length" has.
        """
        if not self._parts:
            return len(self.ids) - self.ends
        if self.stopped:
            return self._counted(limit)
        told = self._told if told is None else told
        if told is None:
            return limit if reason == "length" and limit is not None else self._counted(limit)
        return told - 1 if reason == "stop" and (counts_end or self._counted(None) != told) else told

    def _counted(self, limit: int | None) -> int:
        counted = self._tokenizer.count("".join(self._parts))
        return counted if limit is None else min(counted, limit)

    def ending(self, limit: int) -> FinishReason:
        """Why the answer ended, where the server does not tell: it has as many tokens as it may, or fewer."""
        if not self.stopped and self._parts and self.completion_tokens(None, None) >= limit:
            return "length"
        return "stop"

    def thought_tokens(self, begins: int | None, ends: int | None, *, within: bool) -> int | None:
        """Tokens before the one that `ends` thoughts, without the marks; None where that cannot be told.

        `within`: the answer begins within thoughts, whether or not the token that `begins` them comes first.
        """
        if ends is None or self._parts or not self.ids:
            return None
        opened = begins is not None and self._begins_with(begins)
        if not opened and not within:
            return 0
        first = self.ids.index(begins) + 1 if opened and begins is not None else 0
        until = self.ids.index(ends) if ends in self.ids else len(self.ids) - self.ends
        return max(0, until - first)

    def _begins_with(self, mark: int) -> bool:
        """Whether `mark` is the first token that is more than white space."""
        if mark not in self.ids:
            return False
        return not self._tokenizer.decode(self.ids[: self.ids.index(mark)]).strip()

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
            if token not in self._end_ids:
                self._log_probs.append(LogProb(self._tokenizer.token_bytes(token), log_prob))
