"""Best of: which of several answers to one prompt are given back."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.api.answers import Choice


def best(choices: Sequence[Choice], made: int, wanted: int, *, with_log_probs: bool) -> list[Choice]:
    """Of every `made` choices, which answer one prompt, the `wanted` best, best first.

    OpenAI's measure: the highest log probability per token.
    """
    found: list[Choice] = []
    for first in range(0, len(choices), made):
        ranked = sorted(choices[first : first + made], key=per_token, reverse=True)
        found += ranked[:wanted]
    return found if with_log_probs else [replace(choice, logprobs=None) for choice in found]


def per_token(choice: Choice) -> float:
    """Mean log probability of the answer's tokens; an empty answer was certain."""
    if not choice.logprobs:
        return 0.0
    return sum(entry.log_prob for entry in choice.logprobs) / len(choice.logprobs)
