"""What callers ask of the choice of tokens: ends, stop words, bans, biases, seeds, log probabilities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from emulator.engine import SamplingParams

from .conftest import VOCAB, Client, prompt


def test_the_end_token_ends_the_answer_and_is_part_of_it(client: Client) -> None:
    free = client.ask(prompt(1, 9), 20)
    end = free[6]
    client.send("r", prompt(1, 9), 20, end_id=end)
    (tokens,) = client.finish("r")
    assert tokens == free[: free.index(end) + 1]
    assert client.last("r").finish_reason == "stop"


def test_a_stop_word_of_several_tokens_ends_the_answer(client: Client) -> None:
    free = client.ask(prompt(2, 9), 20)
    word = tuple(free[5:8])
    client.send("r", prompt(2, 9), 20, stop_words=((VOCAB - 1, VOCAB - 1, VOCAB - 1), word))
    (tokens,) = client.finish("r")
    at = next(n for n in range(3, 21) if tuple(free[n - 3 : n]) == word)
    assert tokens == free[:at]
    assert client.last("r").finish_reason == "stop"


def test_min_tokens_holds_back_end_token_and_stop_words(client: Client) -> None:
    free = client.ask(prompt(1, 9), 20)
    sampling = SamplingParams(temperature=0, min_tokens=12)
    tokens = client.ask(prompt(1, 9), 20, end_id=free[3], sampling=sampling)
    assert len(tokens) >= 12
    assert free[3] not in tokens[:12]
    assert len(client.ask(prompt(1, 9), 20, stop_words=((free[3],),), sampling=sampling)) >= 12


def test_bad_words_never_appear(client: Client) -> None:
    free = client.ask(prompt(3, 9), 20)
    single, pair = (free[0],), tuple(free[4:6])
    tokens = client.ask(prompt(3, 9), 20, bad_words=(single, pair))
    assert single[0] not in tokens
    assert pair not in list(pairwise(tokens))


def test_embedding_bias_moves_the_choice(client: Client) -> None:
    bias = np.zeros(VOCAB, dtype=np.float32)
    bias[42] = 1e4
    assert client.ask(prompt(1, 5), 3, embedding_bias=bias) == [42, 42, 42]


def test_log_probs_are_those_of_the_chosen_tokens(client: Client) -> None:
    """One per token, never above zero, and their sum is the cumulated one."""
    client.send("r", prompt(1, 9), 10, return_log_probs=True, sampling=SamplingParams(seed=5))
    client.finish("r")
    log_probs = [value for output in client.outputs["r"] for value in output.log_probs or []]
    assert len(log_probs) == 10
    assert max(log_probs) <= 0
    assert client.last("r").cum_log_prob == pytest.approx(sum(log_probs))
    assert client.outputs["r"][0].cum_log_prob == pytest.approx(log_probs[0])


def test_a_seed_repeats_an_answer_and_none_does_not(client: Client) -> None:
    wild = SamplingParams(temperature=5.0, seed=3)
    assert client.ask(prompt(1, 9), 20, sampling=wild) == client.ask(prompt(1, 9), 20, sampling=wild)
    fresh = SamplingParams(temperature=5.0)
    assert client.ask(prompt(1, 9), 20, sampling=fresh) != client.ask(prompt(1, 9), 20, sampling=fresh)
