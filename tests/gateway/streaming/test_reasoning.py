"""Thoughts are told from the answer, whoever opened the mark, and tool calls after them are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.streaming.reasoning import ReasoningParser, opens_within
from tests.gateway.streaming.parsing import Seen, cut, parse, tool_parser

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def parser(thinking: bool, *, shown: bool = True) -> ReasoningParser:
    return ReasoningParser(tool_parser("hermes"), thinking=thinking, shown=shown)


@pytest.mark.parametrize(
    ("thinking", "text", "expected"),
    [
        (True, "I think.\n</think>\n\nYes.", [("reasoning", "I think.\n"), ("text", "Yes.")]),
        (True, "<think>\nI think.</think>Yes.", [("reasoning", "I think."), ("text", "Yes.")]),
        (False, "\n<think>\nI think.</think>Yes.", [("reasoning", "I think."), ("text", "Yes.")]),
        (False, "Yes. <think>no</think>", [("text", "Yes. <think>no</think>")]),
        (False, " Yes", [("text", " Yes")]),
        (False, "<thinking", [("text", "<thinking")]),
        (True, "I never end </thin", [("reasoning", "I never end </thin")]),
        (True, "</think>\n\nYes.", [("text", "Yes.")]),
        (False, "<think>\n\n</think>\n\nYes.", [("text", "Yes.")]),
        (True, f"Hm {CALL}</think>{CALL}", [("reasoning", f"Hm {CALL}"), ("call", "id0", "add", '{"a": 1}')]),
        (False, f"<think>a</think>\n{CALL}", [("reasoning", "a"), ("call", "id0", "add", '{"a": 1}')]),
        (False, "", []),
    ],
)
def test_thoughts_and_answer(thinking: bool, text: str, expected: Seen) -> None:
    assert parse(parser(thinking), [text]) == expected
    for border in range(len(text)):
        assert parse(parser(thinking), cut(text, [border])) == expected
    assert parse(parser(thinking), list(text)) == expected
    hidden = [item for item in expected if item[0] != "reasoning"]
    assert parse(parser(thinking, shown=False), list(text)) == hidden


def test_without_tools_the_answer_is_text() -> None:
    assert parse(ReasoningParser(thinking=True), ["a</think>", CALL]) == [("reasoning", "a"), ("text", CALL)]


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<", "\n", "a", " ", CALL, "ž"])),
    data=st.data(),
    thinking=st.booleans(),
)
def test_any_chunking_gives_the_same(pieces: list[str], data: st.DataObject, thinking: bool) -> None:
    text = "".join(pieces)
    borders = data.draw(st.lists(st.integers(0, len(text))))
    assert parse(parser(thinking), cut(text, borders)) == parse(parser(thinking), [text])


@pytest.mark.parametrize(
    ("prompt", "default", "within"),
    [
        ("<|assistant|><think>\n", False, True),
        ("<|assistant|>\n<think>\n\n</think>\n\n", True, False),
        ("<|assistant|>\n", True, True),
        ("<|assistant|>\n", False, False),
        ("x" * 1000, True, True),
    ],
)
def test_the_prompt_tells_how_the_answer_begins(prompt: str, default: bool, within: bool) -> None:
    assert opens_within(prompt, default) is within
