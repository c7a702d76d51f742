"""Best of: ranked by log probability per token."""

from __future__ import annotations

from gateway.api.answers import Choice, LogProb
from gateway.best_of import best, per_token


def choice(text: str, *log_probs: float) -> Choice:
    return Choice(text, "stop", [LogProb(b"x", value) for value in log_probs])


def test_a_long_answer_is_not_worse_for_its_length() -> None:
    long, short = choice("long", -1, -1, -1), choice("short", -2)
    assert per_token(long) > per_token(short)
    assert [found.text for found in best([short, long], 2, 1, with_log_probs=False)] == ["long"]


def test_each_prompt_has_its_own_best_in_order() -> None:
    made = [
        choice("a", -3),
        choice("b", -1),
        choice("c", -2),
        choice("d", -1),
        choice("e", -2),
        choice("f", -3),
    ]
    found = best(made, 3, 2, with_log_probs=False)
    assert [one.text for one in found] == ["b", "c", "d", "e"]
    assert all(one.logprobs is None for one in found)
    assert best(made, 3, 1, with_log_probs=True)[0].logprobs == [LogProb(b"x", -1)]


def test_an_answer_without_tokens_was_certain() -> None:
    assert per_token(choice("")) == 0.0
