"""Comparison: two answers to one prompt, side by side. Pure."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from engine_builder.quality.prompts import Prompt

_LEAST = 1e-9
"""Probability that counts as none."""
_BETWEEN = re.compile(r"[^\w]+|_+")


class Token(NamedTuple):
    """One token of an answer. Probabilities are natural logarithms."""

    text: str
    log_prob: float
    others: tuple[tuple[str, float], ...] = ()
    """The likeliest at its place, itself among them where the lane tells them."""


class Answer(NamedTuple):
    """What one side said."""

    text: str
    finish_reason: str
    tokens: tuple[Token, ...] | None = None
    """None: its lane does not tell log-probabilities."""


class Compared(NamedTuple):
    """Both answers to one prompt."""

    prompt: Prompt
    baseline: str
    candidate: str
    same: bool
    agreement: float
    """Share of the longer answer's tokens up to the first that differs."""
    by_tokens: bool
    """Else of its words: tokens are not told, or the two sides cut text into different ones."""
    kl: tuple[float, ...]
    """At each place up to the first difference, how far apart the distributions are at least; in nats."""
    log_prob_drop: tuple[float, ...]
    """At each place before it, how much less likely the token that both chose is to the candidate."""
    baseline_right: bool | None
    candidate_right: bool | None


def compare(prompt: Prompt, baseline: Answer, candidate: Answer) -> Compared:
    """Greedy answers to the same prompt."""
    kl: list[float] = []
    drops: list[float] = []
    ones, others = baseline.text.split(), candidate.text.split()
    by_tokens = _cut_alike(baseline.tokens or (), candidate.tokens or ())
    if by_tokens:
        ones, others = ([token.text for token in of.tokens or ()] for of in (baseline, candidate))
        pairs = list(zip(baseline.tokens or (), candidate.tokens or (), strict=False))
        common = _common(ones, others)
        kl = [divergence(*pair) for pair in pairs[: common + 1]]
        drops = [one.log_prob - other.log_prob for one, other in pairs[:common]]
    common = _common(ones, others)
    longest = max(len(ones), len(others))
    return Compared(
        prompt,
        baseline.text,
        candidate.text,
        baseline.text == candidate.text and baseline.finish_reason == candidate.finish_reason,
        common / longest if longest else 1.0,
        by_tokens,
        tuple(kl),
        tuple(drops),
        right(prompt, baseline.text),
        right(prompt, candidate.text),
    )


def divergence(one: Token, other: Token) -> float:
    """Kullback-Leibler divergence of the second from the first, by what is known of both, in nats.

    Tokens that are not known of both are taken together as one. So it is at most the whole distributions'.
    """
    first, second = _known(one), _known(other)
    shared = first.keys() & second.keys()
    p = [math.exp(first[token]) for token in shared]
    q = [math.exp(second[token]) for token in shared]
    p.append(max(0.0, 1 - sum(p)))
    q.append(max(0.0, 1 - sum(q)))
    found = sum(
        a * math.log(max(a, _LEAST) / max(b, _LEAST)) for a, b in zip(p, q, strict=True) if a > _LEAST
    )
    return max(0.0, found)


def right(prompt: Prompt, text: str) -> bool | None:
    """Whether the answer is right, but for letters' case and what stands between words; None: not known."""
    if not prompt.answers:
        return None
    said = _words(text)
    if prompt.match == "exact":
        return any(said == _words(answer) for answer in prompt.answers)
    return any(f" {_words(answer)} " in f" {said} " for answer in prompt.answers)


def _words(text: str) -> str:
    return _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _known(token: Token) -> dict[str, float]:
    return {token.text: token.log_prob, **dict(token.others)}


def _cut_alike(ones: Sequence[Token], others: Sequence[Token]) -> bool:
    """Whether the first tokens that differ mean different texts, and not the same text cut otherwise."""
    if not ones or not others:
        return False
    texts, other_texts = [one.text for one in ones], [one.text for one in others]
    common = _common(texts, other_texts)
    rest, other_rest = "".join(texts[common:]), "".join(other_texts[common:])
    if not rest or not other_rest:
        return True
    shorter = min((texts[common], other_texts[common]), key=len)
    return not (rest.startswith(shorter) and other_rest.startswith(shorter))


def _common(ones: Sequence[str], others: Sequence[str]) -> int:
    for place, (one, other) in enumerate(zip(ones, others, strict=False)):
        if one != other:
            return place
    return min(len(ones), len(others))
