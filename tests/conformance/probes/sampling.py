"""Probes of how tokens are chosen, and of what is told of the choice."""

from __future__ import annotations

from typing import Any

from tests.conformance.ask import Ask, content
from tests.conformance.probes.probe import probes

PROBES, probe = probes()

# Sampling


@probe("sampling", "seed")
def seed(ask: Ask) -> None:
    hot = {"temperature": 1.8, "max_tokens": 24}
    assert ask.text(seed=5, **hot) == ask.text(seed=5, **hot)
    assert len({ask.text(**hot) for _ in range(5)}) > 1


@probe("sampling", "top_p")
def top_p(ask: Ask) -> None:
    assert ask.text(temperature=1.5, top_p=0.01) == ask.plain


@probe("sampling", "top_k")
def top_k(ask: Ask) -> None:
    assert ask.text(temperature=1.5, top_k=1) == ask.plain


@probe("sampling", "min_p")
def min_p(ask: Ask) -> None:
    assert ask.text(temperature=1.5, min_p=0.99) == ask.plain


@probe("sampling", "frequency_penalty")
def frequency_penalty(ask: Ask) -> None:
    changes(ask, frequency_penalty=2.0)


@probe("sampling", "presence_penalty")
def presence_penalty(ask: Ask) -> None:
    changes(ask, presence_penalty=2.0)


@probe("sampling", "repetition_penalty")
def repetition_penalty(ask: Ask) -> None:
    changes(ask, repetition_penalty=8.0)


@probe("sampling", "logit_bias")
def logit_bias(ask: Ask) -> None:
    assert ask.tokenizer is not None
    wanted = ask.tokenizer.encode(" the", add_special_tokens=False)[0]
    assert (
        ask.chat(logit_bias={str(wanted): 100}, max_tokens=3)["choices"][0]["message"]["content"]
        .strip()
        .startswith("the")
    )


@probe("sampling", "bad_words")
def bad_words(ask: Ask) -> None:
    word = ask.plain.split()[0]
    assert word not in ask.text(bad_words=[word, f" {word}"])


def changes(ask: Ask, **fields: Any) -> None:
    """Over a long answer the setting shows."""
    longer = {"ignore_eos": True, "max_tokens": 64}
    try:
        plain = ask.text(**longer)
    except Exception:  # where the end cannot be ignored, a long answer is asked for
        longer = {"max_tokens": 64, "messages": [{"role": "user", "content": "Count from one to twenty."}]}
        plain = ask.text(**longer)
    assert ask.text(**longer, **fields) != plain, "no effect"


# Log probabilities


@probe("log probabilities", "logprobs")
def logprobs(ask: Ask) -> None:
    answer = ask.chat(logprobs=True, max_tokens=8)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == answer["usage"]["completion_tokens"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == content(answer)
    assert all(entry["logprob"] <= 0 for entry in entries)


@probe("log probabilities", "top_logprobs")
def top_logprobs(ask: Ask) -> None:
    entries = ask.chat(logprobs=True, top_logprobs=3, max_tokens=4)["choices"][0]["logprobs"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)
