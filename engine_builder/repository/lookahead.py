"""Lookahead decoding: its three sizes, and the draft tokens that an engine is built for. Pure.

A step guesses `window` n-grams and verifies `verification` of them, which takes as many draft tokens as the
engine must have been built for, no more and no fewer. Source: `LookaheadDecodingConfig` in
cpp/tensorrt_llm/executor of NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from typing import NamedTuple

_NGRAMS = (3, 4, 5, 2)
"""In the order of preference: 3 is the executor's own default, and 2 goes with any number."""


class Lookahead(NamedTuple):
    """Sizes of one configuration."""

    window: int
    ngram: int
    verification: int

    @property
    def draft_tokens(self) -> int:
        """What `--max_draft_len` must have been."""
        first = 0 if self.ngram == 1 else self.ngram - 2
        return first + (self.window - 1 + self.verification) * (self.ngram - 1)


def sizes_for(draft_tokens: int) -> Lookahead:
    """Sizes that take exactly so many draft tokens, at least 1; window and verification nearly alike."""
    for ngram in _NGRAMS:
        ngrams, rest = divmod(draft_tokens - (ngram - 2), ngram - 1)
        if rest == 0 and ngrams >= 1:
            window = (ngrams + 1) // 2
            return Lookahead(window, ngram, ngrams + 1 - window)
    raise ValueError(f"draft_tokens must be at least 1, got {draft_tokens}")
