"""Text as tokens arrive: nothing split, nothing late, nothing different from a decode at the end."""

from __future__ import annotations

import codecs
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.detokenizer import Detokenizer, Pieces
from tests.inference.conftest import TEXTS, TOKENIZERS

TABLE_KINDS = ("byte-level", "byte-fallback", "byte-fallback-no-strip")
tokenizer_of = cache(lambda kind: TOKENIZERS[kind]())


@st.composite
def chunked_ids(draw: st.DrawFn, highest: int = 420) -> list[list[int]]:
    """Any ids, unknown ones included, in any chunks."""
    ids = draw(st.lists(st.integers(0, highest), max_size=40))
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    return [ids[a:b] for a, b in pairwise([0, *cuts, len(ids)])]


def pushed(detokenizer: Detokenizer, chunks: list[list[int]]) -> str:
    return "".join([detokenizer.push(chunk) for chunk in chunks]) + detokenizer.flush()


@given(chunked_ids(), st.booleans())
def test_byte_level_text_is_that_of_one_decode(chunks: list[list[int]], skip: bool) -> None:
    """Any ids in any chunks: the pieces together are the tokenizer's own decode."""
    tokenizer = tokenizer_of("byte-level")
    whole = tokenizer.decode([i for chunk in chunks for i in chunk], skip_special_tokens=skip)
    assert pushed(Detokenizer(tokenizer, skip), chunks) == whole


@given(chunked_ids(highest=300), st.sampled_from(TABLE_KINDS))
def test_chunks_do_not_matter(chunks: list[list[int]], kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    together = [[i for chunk in chunks for i in chunk]]
    assert pushed(Detokenizer(tokenizer), chunks) == pushed(Detokenizer(tokenizer), together)


@given(chunked_ids(highest=300), st.sampled_from(("byte-fallback", "byte-fallback-no-strip")))
def test_byte_fallback_text_is_that_of_one_decode(chunks: list[list[int]], kind: str) -> None:
    """Where every run of byte tokens is whole; a broken run keeps the characters it had completed."""
    tokenizer = tokenizer_of(kind)
    whole = tokenizer.decode([i for chunk in chunks for i in chunk], skip_special_tokens=True)
    ours = pushed(Detokenizer(tokenizer), chunks)
    if "\ufffd" in whole:
        assert ours.count("\ufffd") <= whole.count("\ufffd")
        assert "\ufffd" in ours
    else:
        assert ours == whole


@given(st.text(max_size=60))
def test_any_text_survives_token_by_token(any_tokenizer: Tokenizer, text: str) -> None:
    """For every kind of decoder, the window included."""
    ids = any_tokenizer.encode(text, add_special_tokens=False).ids
    whole = any_tokenizer.decode(ids)
    assert pushed(Detokenizer(any_tokenizer), [[i] for i in ids]) == whole


@given(st.lists(st.integers(0, 255), max_size=24))
def test_nothing_is_held_back_that_is_certain(data: list[int]) -> None:
    """After each byte, all that is held is a beginning which some further byte could still complete."""
    tokenizer = tokenizer_of("byte-fallback-no-strip")
    byte_id = {byte: tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}
    detokenizer = Detokenizer(tokenizer)
    shown = ""
    for position, byte in enumerate(data, start=1):
        shown += detokenizer.push([byte_id[byte]])
        held = bytes(data[:position])
        expected = reference(held)
        assert shown == expected


def reference(data: bytes) -> str:
    """Decoding by the definition of UTF-8: what is certain after `data`; U+FFFD per byte that never fits."""
    text = ""
    start = 0
    while start < len(data):
        for end in range(start + 1, min(start + 4, len(data)) + 1):
            try:
                text += data[start:end].decode()
            except UnicodeDecodeError:
                continue
            start = end
            break
        else:
            if could_continue(data[start:]):
                return text
            text += "\ufffd"
            start += 1
    return text


def could_continue(beginning: bytes) -> bool:
    """Whether some bytes after `beginning` make it one character; tried with all that matter."""
    tails = [
        bytes([second, *rest]) for second in (0x80, 0x90, 0xA0, 0xBF) for rest in ((), (0x80,), (0x80, 0x80))
    ]
    for tail in tails:
        try:
            if len((beginning + tail).decode()) == 1:
                return True
        except UnicodeDecodeError:
            continue
    return False


@pytest.mark.parametrize("character", ["é", "東", "👩"])
def test_a_character_is_shown_with_its_last_byte(character: str) -> None:
    tokenizer = tokenizer_of("byte-fallback-no-strip")
    *first, last = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in character.encode()]
    detokenizer = Detokenizer(tokenizer)
    assert "".join(detokenizer.push([i]) for i in first) == ""
    assert detokenizer.push([last]) == character
    assert detokenizer.flush() == ""


def test_an_unfinished_character_becomes_a_replacement_at_the_end() -> None:
    tokenizer = tokenizer_of("byte-level")
    beginning = tokenizer.encode("東", add_special_tokens=False).ids[:-1]
    detokenizer = Detokenizer(tokenizer)
    assert detokenizer.push(beginning) == ""
    assert detokenizer.flush() == "\ufffd"


def test_answers_share_a_table_without_mixing() -> None:
    tokenizer = tokenizer_of("byte-level")
    pieces = Pieces.of(tokenizer)
    texts = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    readers = [Detokenizer(tokenizer, pieces=pieces) for _ in texts]
    shown = ["" for _ in texts]
    for step in range(max(map(len, texts))):
        for index, ids in enumerate(texts):
            shown[index] += readers[index].push(ids[step : step + 1])
    assert shown == TEXTS


@pytest.mark.parametrize("kind", TABLE_KINDS)
def test_the_kinds_that_models_use_are_read_from_a_table(kind: str) -> None:
    assert Pieces.of(tokenizer_of(kind)) is not None


def test_reference_agrees_with_the_standard_decoder() -> None:
    text = "".join(TEXTS)
    assert reference(text.encode()) == codecs.decode(text.encode())
