"""Assembler: any text in any pieces, its ends, and its exact count."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.answers import LogProb
from gateway.api.options import ApiOptions
from gateway.streaming.text import Assembler
from inference.sink import TokenScore
from inference.tokenizer import ModelTokenizer
from tests.stack.stack import ROOT

TOKENIZER = ModelTokenizer.load(ROOT / "emulator" / "models" / "house-chat")
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("ab .é🚂日"), min_size=1, max_size=24
)


def encoded(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def chunked(ids: list[int], borders: list[int]) -> list[list[int]]:
    cuts = sorted({0, len(ids), *(border for border in borders if border <= len(ids))})
    return [ids[a:b] for a, b in pairwise(cuts)]


def said(assembler: Assembler, chunks: list[list[int]]) -> str:
    parts = [assembler.tokens(chunk, None) for chunk in chunks]
    return "".join(parts) + assembler.flush()


@given(TEXTS, st.lists(st.integers(0, 30), max_size=6))
def test_any_text_in_any_pieces(text: str, borders: list[int]) -> None:
    ids = encoded(text)
    assembler = Assembler(TOKENIZER, (), log_probs=False)
    assert said(assembler, chunked(ids, borders)) == TOKENIZER.decode(ids)
    assert assembler.completion_tokens() == len(ids)


@given(
    TEXTS,
    st.lists(TEXTS.map(lambda t: t[:3]), min_size=1, max_size=3),
    st.lists(st.integers(0, 30), max_size=6),
)
def test_a_stop_string_cuts_and_counts_alike_in_any_pieces(
    text: str, stops: list[str], borders: list[int]
) -> None:
    """Tokens up to the one that completes the stop string count; what came with it does not."""
    ids = encoded(text)
    one_by_one, together = (Assembler(TOKENIZER, tuple(stops), log_probs=False) for _ in range(2))
    texts = said(one_by_one, [[token] for token in ids]), said(together, chunked(ids, borders))
    assert texts[0] == texts[1]
    assert one_by_one.completion_tokens() == together.completion_tokens()
    assert one_by_one.stopped == together.stopped
    assert not any(stop in texts[0] for stop in stops)


def test_a_stop_string_may_stay() -> None:
    options = ApiOptions(include_stop=True)
    for chunks in ([encoded("one. Two")], [[token] for token in encoded("one. Two")]):
        assembler = Assembler(TOKENIZER, (".",), False, options)
        assert said(assembler, chunks) == "one."
        assert assembler.completion_tokens() == len(encoded("one."))


def test_log_probabilities_end_with_the_answer() -> None:
    ids = encoded("one. Two")
    assembler = Assembler(TOKENIZER, (".",), log_probs=True)
    assembler.tokens(ids, [-float(i) for i in range(len(ids))])
    log_probs = assembler.take_log_probs()
    assert log_probs is not None
    assert [one.log_prob for one in log_probs] == [-float(i) for i in range(assembler.completion_tokens())]


def test_a_stop_token_is_no_part_of_the_answer() -> None:
    ids = encoded("one two")
    options = ApiOptions(stop_token_ids=(ids[-1],))
    assembler = Assembler(TOKENIZER, (), True, options)
    assert said(assembler, [ids]) == TOKENIZER.decode(ids[:-1])
    assert assembler.completion_tokens() == len(ids) - 1
    assert assembler.ends
    kept = Assembler(TOKENIZER, (), False, ApiOptions(stop_token_ids=(ids[-1],), include_stop=True))
    assert said(kept, [ids]) == "one two"
    assert kept.completion_tokens() == len(ids)


def test_end_tokens_count_where_the_answer_goes_on_after_them() -> None:
    end = TOKENIZER.end_id
    assert end is not None
    ids = [*encoded("one"), end]
    plain = Assembler(TOKENIZER, (), log_probs=False)
    assert said(plain, [ids]) == "one"
    assert plain.completion_tokens() == len(ids) - 1
    ignoring = Assembler(TOKENIZER, (), False, ApiOptions(ignore_eos=True))
    assert said(ignoring, [ids]) == "one"
    assert (ignoring.completion_tokens(), ignoring.ends) == (len(ids), False)
    showing = Assembler(TOKENIZER, (), False, ApiOptions(ignore_eos=True, skip_special_tokens=False))
    assert said(showing, [ids]) == "one" + TOKENIZER.decode([end], skip_special_tokens=False)
    ending = Assembler(TOKENIZER, (), False, ApiOptions(skip_special_tokens=False))
    assert said(ending, [ids]) == "one"


@pytest.mark.parametrize(
    ("told", "reason", "counted"),
    [
        (None, "length", 9),  # `llmapi` at its limit
        (None, "stop", 2),  # `llmapi`: by the text
        (2, "stop", 2),  # an engine that leaves the end token out
        (3, "stop", 2),  # one that counts it
        (5, "length", 5),
        (3, None, 3),  # cut off
    ],
)
def test_a_text_lanes_count(told: int | None, reason: str, counted: int) -> None:
    text = TOKENIZER.decode(encoded("one two")[:2])
    assert TOKENIZER.count(text) == 2
    assembler = Assembler(TOKENIZER, (), log_probs=False)
    assembler.text(text, told)
    assert assembler.completion_tokens(reason, None, 9) == counted  # type: ignore[arg-type]


def test_a_text_is_counted_up_to_its_stop_string() -> None:
    assembler = Assembler(TOKENIZER, (".",), log_probs=False)
    assert assembler.text("one. Two", 5) == "one"
    assert assembler.completion_tokens("stop", 5, 9) == TOKENIZER.count("one.")


def test_a_server_that_tells_no_reason_ends_by_length_where_the_count_says_so() -> None:
    assembler = Assembler(TOKENIZER, (), log_probs=False)
    assembler.text("one two")
    assert assembler.ending(TOKENIZER.count("one two")) == "length"
    assert assembler.ending(9) == "stop"


def test_an_engine_that_counts_the_end_counts_one_too_many() -> None:
    """Whatever number of tokens the text has when it is tokenised again."""
    assembler = Assembler(TOKENIZER, (), log_probs=False)
    assembler.text("one two", 3)
    again = TOKENIZER.count("one two")
    assert assembler.completion_tokens("stop", again, 9) == again
    assert assembler.completion_tokens("stop", again, 9, counts_end=True) == again - 1
    assert assembler.completion_tokens("length", again, 9, counts_end=True) == again


def test_scores_are_of_the_answers_tokens_with_the_likeliest_beside_them() -> None:
    first, second = encoded("one two")[-2:]
    assembler = Assembler(TOKENIZER, (), log_probs=True)
    end = next(iter(TOKENIZER.end_ids))
    unknown = TOKENIZER.vocab_size + 5
    assembler.scores([TokenScore(first, -0.5, ((first, -0.5), (unknown, -2.0))), TokenScore(end, -0.1)])
    assert assembler.take_log_probs() == [
        LogProb(TOKENIZER.token_bytes(first), -0.5, [(TOKENIZER.token_bytes(first), -0.5), (b"", -2.0)])
    ]
    assembler.scores([TokenScore(second, -0.2)])
    assert assembler.take_log_probs() == [LogProb(TOKENIZER.token_bytes(second), -0.2, [])]
