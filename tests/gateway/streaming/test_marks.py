"""Assembled text: special tokens that a parser reads are kept, and thoughts are counted by tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from gateway.streaming.text import Assembler
from inference.tokenizer import ModelTokenizer
from tests.stack.stack import ROOT

SPECIAL = ["[TOOL_CALLS]", "<|python_tag|>"]
MARKS = frozenset([*SPECIAL, "<think>", "</think>", "</s>"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """The demo model's, with marks as models of other families have them: special, or plain added tokens."""
    source = ROOT / "emulator" / "models" / "house-chat"
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    made = Tokenizer.from_file(str(source / "tokenizer.json"))
    made.add_special_tokens(SPECIAL)
    made.add_tokens(["<think>", "</think>"])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text((source / "tokenizer_config.json").read_text())
    return ModelTokenizer.load(folder)


def ids(tokenizer: ModelTokenizer, text: str, *, ended: bool = True) -> list[int]:
    assert tokenizer.end_id is not None
    return tokenizer.encode(text, add_special_tokens=False) + [tokenizer.end_id] * ended


def assembled(tokenizer: ModelTokenizer, text: str, marks: frozenset[str]) -> str:
    assembler = Assembler(tokenizer, (), log_probs=False, marks=marks)
    return "".join([assembler.tokens([one], None) for one in ids(tokenizer, text)]) + assembler.flush()


def test_marks_are_kept_and_other_special_tokens_are_not(tokenizer: ModelTokenizer) -> None:
    """Not even an end token that somebody asked for."""
    text = "a[TOOL_CALLS] b<|python_tag|>ž<|user|>"
    assert assembled(tokenizer, text, MARKS) == "a[TOOL_CALLS] b<|python_tag|>ž"
    assert assembled(tokenizer, text, frozenset({"[TOOL_CALLS]"})) == "a[TOOL_CALLS] bž"
    assert assembled(tokenizer, text, frozenset()) == "a bž"


@pytest.mark.parametrize(
    ("text", "within", "thoughts"),
    [
        ("<think>one two</think> three", False, "one two"),
        ("<think>one two</think> three", True, "one two"),
        ("one two</think> three", True, "one two"),
        ("one two</think> three", False, ""),
        ("\n<think>one", False, "one"),
        ("one two", True, "one two"),
        ("one <think>two</think>", False, ""),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
def test_thoughts_are_counted_by_tokens(
    tokenizer: ModelTokenizer, text: str, within: bool, thoughts: str, ended: bool
) -> None:
    assembler = Assembler(tokenizer, (), log_probs=False)
    assembler.tokens(ids(tokenizer, text, ended=ended), None)
    marks = (tokenizer.token_id("<think>"), tokenizer.token_id("</think>"))
    assert assembler.thought_tokens(*marks, within=within) == tokenizer.count(thoughts)


def test_thoughts_are_not_counted_where_they_cannot_be(tokenizer: ModelTokenizer) -> None:
    """A lane of text, or marks that are several tokens."""
    by_text = Assembler(tokenizer, (), log_probs=False)
    by_text.text("<think>a</think>b")
    assert by_text.thought_tokens(1, 2, within=True) is None
    by_tokens = Assembler(tokenizer, (), log_probs=False)
    by_tokens.tokens([5, 6], None)
    assert by_tokens.thought_tokens(None, None, within=True) is None
