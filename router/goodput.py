"""Goodput: how much one engine does within targets, by its card's lines. Pure.

An engine that batches in flight alternates: decode steps of all requests, and steps with prompts in them,
during which tokens of the others wait. With `b` requests in decode, prompts of `P` and answers of `O` tokens:

    a request's share of the engine  = P / prefill rate  +  O * step(b) / b        seconds
    requests per second              = 1 / that
    share of time in prefill   rho   = requests per second * P / prefill rate
    between two tokens               = step(b) / (1 - rho)
    to a first token                 = overhead + P / rate * (1 + rho / (2 * (1 - rho)))

The last has the mean wait of a queue with random arrivals and equal service times (M/D/1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from model_registry.cards import Goodput, GoodputCard


class Ask(NamedTuple):
    """Which requests, and what they are to get."""

    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    itl_s: float


class Load(NamedTuple):
    """What an engine does with so many requests that decode, and what these see of it."""

    batch: int
    requests_per_s: float
    ttft_s: float
    itl_s: float


def load(card: GoodputCard, ask: Ask, batch: int) -> Load:
    """The engine with `batch` requests in decode, new ones coming as these end."""
    prefill_s = ask.prompt_tokens / card.prefill_tokens_per_s
    step_s = card.step_base_s + card.step_per_request_s * batch
    requests_per_s = 1 / (prefill_s + ask.output_tokens * step_s / batch)
    rho = requests_per_s * prefill_s
    ttft_s = card.overhead_s + prefill_s * (1 + rho / (2 * (1 - rho)))
    return Load(batch, requests_per_s, ttft_s, step_s / (1 - rho))


def within(card: GoodputCard, ask: Ask) -> Load | None:
    """The most that the engine does within the targets, in the mean; None: not even one request does."""
    best = None
    low, high = 0, most(card, ask)
    while low < high:  # both times grow with the batch
        middle = (low + high + 1) // 2
        found = load(card, ask, middle)
        if found.ttft_s <= ask.ttft_s and found.itl_s <= ask.itl_s:
            low, best = middle, found
        else:
            high = middle - 1
    return best


def forecast(card: GoodputCard, ask: Ask) -> Goodput:
    """The most within the targets, in the mean; what varies about it is left out."""
    best = within(card, ask)
    return goodput(ask, 0.0 if best is None else best.requests_per_s)


def goodput(ask: Ask, requests_per_s: float) -> Goodput:
    """As a card has it."""
    tokens_per_s = requests_per_s * ask.output_tokens
    return Goodput(
        **ask._asdict(), requests_per_s=figures(requests_per_s), tokens_per_s=figures(tokens_per_s)
    )


def figures(value: float) -> float:
    """To four figures: more would be noise."""
    return float(f"{value:.4g}")


def most(card: GoodputCard, ask: Ask) -> int:
    """Requests of these lengths that run at once: by slots, and by the KV cache where that is known."""
    if card.kv_tokens is None:
        return card.slots
    return min(card.slots, card.kv_tokens // (ask.prompt_tokens + ask.output_tokens))


class Fit(NamedTuple):
    """A straight line."""

    base: float
    slope: float


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Through points above 0 by least squares of relative error, never falling and never below 0.

    Relative, so that the short ones count as much as the long. Points at one place alone make a level line.
    """
    weighed = [(x, y, 1 / (y * y)) for x, y in points]
    whole = sum(w for _, _, w in weighed)
    mean_x, mean_y = sum(w * x for x, _, w in weighed) / whole, sum(w * y for _, y, w in weighed) / whole
    spread = sum(w * (x - mean_x) ** 2 for x, _, w in weighed)
    shared = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in weighed)
    slope = max(0.0, shared / spread) if spread > 1e-12 * whole * mean_x**2 else 0.0
    base = mean_y - slope * mean_x
    if base >= 0:
        return Fit(base, slope)
    return Fit(0.0, sum(w * x * y for x, y, w in weighed) / sum(w * x * x for x, _, w in weighed))
