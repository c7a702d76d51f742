"""Views: the values that a routing decision is made of, and what a policy makes of them.

Everything is as a gateway can see it: its own dispatches credited at once, what engines reported, and how
old that is. The same values come from a live ledger, from a test and from replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from router.attention import weighed


class Ask(NamedTuple):
    """What one request asks of an endpoint."""

    prompt_tokens: int
    output_tokens: int
    """Expected, from the client's limit or the model's history; never the true length."""
    blocks: Sequence[int] = ()
    """Hashes of the prompt's whole token blocks, each chained to those before it."""
    tenant: str = ""
    session: str | None = None
    """What a client says belongs together."""
    deadline_s: float | None = None
    """Time by which its first token is due, on the clock of the decision."""
    block_tokens: int = 64
    """Tokens of each of `blocks`."""
    seed: int = 0
    """What sets its blocks apart from others of the same tokens: an adapter."""
    attention: float = 0.0
    """What an uncached token counts more for each token before it; `router.attention`."""


class EndpointView(Struct, frozen=True, gc=False):
    """One endpoint that may serve the request, when the decision is made."""

    name: str
    slots: int
    """Requests that its engine runs at once."""
    requests: int = 0
    """In flight, credited at dispatch."""
    prefill_tokens: int = 0
    """Uncached tokens, with what attention adds, of prompts sent there whose first token has not come yet."""
    decode_tokens: int = 0
    """Tokens that the requests past their first token hold in its KV cache."""
    cached_tokens: int = 0
    """Of this request's prompt, believed to be in its KV cache."""
    prefill_tokens_per_s: float = 20_000.0
    """Forecast for its engine."""
    step_s: float = 0.03
    """Forecast of one decode step at its present batch."""
    weight: float = 1.0
    """Share of the traffic it is meant to take beside others (canaries)."""
    surcharge_tokens: int = 0
    """What else sending the request there costs, as prompt tokens: an adapter that it lacks."""
    hoped_tokens: int = 0
    """Of `prefill_tokens`, those that are done as well if all goes about as fast as is forecast."""
    age_s: float = 0.0
    """Of the oldest figure in here that others reported; what this process did itself has no age."""

    def uncached_tokens(self, ask: Ask) -> int:
        """What of the prompt it would have to compute, with what attention adds; the last token always."""
        uncached = max(1, ask.prompt_tokens - self.cached_tokens)
        if ask.attention:
            uncached = weighed(uncached, ask.prompt_tokens - uncached, ask.attention)
        return uncached + self.surcharge_tokens

    def ttft_s(self, ask: Ask) -> float:
        """Forecast of the time to the request's first token, if it were sent there now."""
        ahead = self.prefill_tokens + self.uncached_tokens(ask)
        return ahead / self.prefill_tokens_per_s + self.step_s


class Policy(Protocol):
    """Rates endpoints. One object per deployment group and gateway process; may remember what it chose."""

    def costs(self, ask: Ask, views: Sequence[EndpointView], now_s: float) -> Sequence[float]:
        """One cost per view, lower is better, `inf` for never; ties are broken at random by the caller."""

    def chosen(self, ask: Ask, view: EndpointView, now_s: float) -> None:
        """The request went there."""
