"""Attention: what a prompt's token costs an engine more, the more tokens stand before it.

Prefill computes each token once and lets it look at all before it: 100,000 tokens take an engine a multiple
of ten times what 10,000 take, and the last 1,000 of a long prompt that is cached take more than a short
prompt of 1,000. In the ledger and for policies an uncached token therefore counts 1 + `share` x the tokens
before it, so that load is in tokens of a short prompt. The share is learned from first tokens; it is the
model's, and much the same on every engine of it.
"""

from __future__ import annotations

from router.forecast import COMMON, Line

LEAST_TOKENS = 4096
"""Of a prompt that something can be learned from: a shorter one's first token takes steps, not tokens."""
TYPICAL = 3e-5
"""Where learning begins: what attention's multiplications are beside all others of a dense model of 8 to 70
billion parameters, 2 x layers x width / parameters. From 0, the first long prompts make an engine seem so
slow that it got no more to prove otherwise."""
MOST = 1e-3
"""Of the share; what would be more is chance."""
_SPAN_TOKENS = 16_384.0


def weighed(uncached: int, cached: int, share: float) -> int:
    """The last `uncached` tokens of a prompt, behind `cached` ones, in tokens of a short prompt."""
    return int(uncached * (1.0 + share * (cached + uncached / 2)))


class Attention:
    """The share of one model: seconds per token, over the mean number of tokens before each."""

    def __init__(self) -> None:
        self.share = TYPICAL
        """Of a token's own cost, for each token before it."""
        token_s = 1 / COMMON.prefill_tokens_per_s
        self._line = Line(token_s, TYPICAL * token_s, _SPAN_TOKENS, memory=512, weight=1)

    def saw_ttft(self, uncached: int, cached: int, ttft_s: float) -> None:
        """A first token came `ttft_s` after its prompt went to an engine that had no other to compute."""
        if uncached < LEAST_TOKENS:
            return
        self._line.observe(cached + uncached / 2, ttft_s / uncached)
        self.share = min(MOST, self._line.slope / max(1e-9, self._line.intercept))
