"""Which parser an answer gets: none where nothing asks for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.api.requests import BodyLimits, parse_completion
from gateway.parsing import Parsing, parsing_for
from gateway.streaming.parts import Reasoning, Text, ToolArguments, ToolCall
from gateway.streaming.text import Assembler
from inference.tokenizer import ModelTokenizer
from model_registry.entities import Model
from tests.gateway.api.asked import chat
from tests.stack.stack import ROOT

TOOLS = [{"type": "function", "function": {"name": "add"}}]
HERMES = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'


@pytest.fixture(scope="module")
def tokenizer() -> ModelTokenizer:
    return ModelTokenizer.load(ROOT / "emulator" / "models" / "house-chat")


def model(**parsers: Any) -> Model:
    return Model(name="m", context_length=100, **parsers)


def parts_of(parsing: Parsing | None, text: str) -> list[Any]:
    parser = None if parsing is None else parsing.parser()
    assert parser is not None
    return [*parser.push(text), *parser.flush()]


def test_who_asks_for_nothing_gets_no_parser(tokenizer: ModelTokenizer) -> None:
    both = model(tool_parser="hermes", reasoning_parser="qwen3")
    assert parsing_for(chat(), model(tool_parser="hermes"), "", tokenizer) is None
    assert (
        parsing_for(chat(tools=TOOLS, tool_choice="none"), model(tool_parser="hermes"), "", tokenizer) is None
    )
    completion = parse_completion(json.dumps({"model": "m", "prompt": "a"}).encode(), BodyLimits())
    assert parsing_for(completion, both, "a", tokenizer) is None


def test_each_part_has_its_parser_and_its_marks(tokenizer: ModelTokenizer) -> None:
    tools = parsing_for(chat(tools=TOOLS), model(tool_parser="hermes"), "", tokenizer)
    assert tools is not None
    assert tools.marks == {"<tool_call>", "</tool_call>"}
    assert [type(part) for part in parts_of(tools, HERMES)] == [ToolCall, ToolArguments]
    thoughts = parsing_for(chat(), model(reasoning_parser="qwen3"), "", tokenizer)
    assert thoughts is not None
    assert thoughts.marks == {"<think>", "</think>"}
    assert parts_of(thoughts, "<think>a</think>b") == [Reasoning("a"), Text("b")]
    assert parts_of(thoughts, HERMES) == [Text(HERMES)]


def test_the_prompt_and_the_family_tell_whether_it_thinks(tokenizer: ModelTokenizer) -> None:
    def begins(name: Any, prompt: str, **fields: Any) -> list[Any]:
        asked = model(reasoning_parser=name, tool_parser="hermes")
        return parts_of(parsing_for(chat(**fields), asked, prompt, tokenizer), "a</think>b")

    assert begins("deepseek_r1", "<assistant>") == [Reasoning("a"), Text("b")]
    assert begins("qwen3", "<assistant><think>\n") == [Reasoning("a"), Text("b")]
    assert begins("qwen3", "<assistant>") == [Text("a</think>b")]
    assert begins("deepseek_r1", "<assistant><think></think>") == [Text("a</think>b")]
    assert begins("deepseek_r1", "<assistant>", include_reasoning=False) == [Text("b")]
    forced = {"tools": TOOLS, "tool_choice": "required"}
    assert begins("deepseek_r1", "<assistant><think>\n", **forced) == [Text("a</think>b")]


@pytest.mark.parametrize("family", ["hermes", "mistral"])
def test_a_forced_call_has_one_form_for_all_families(tokenizer: ModelTokenizer, family: Any) -> None:
    required = chat(tools=TOOLS, tool_choice="required")
    parsing = parsing_for(required, model(tool_parser=family), "", tokenizer)
    begun, arguments = parts_of(parsing, '[{"name": "add", "parameters": {"a": 1}}]')
    assert (begun.name, arguments) == ("add", ToolArguments(0, '{"a": 1}'))
    named = chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "add"}})
    begun, arguments = parts_of(parsing_for(named, model(tool_parser=family), "", tokenizer), '{"a": 1}')
    assert (begun.name, arguments) == ("add", ToolArguments(0, '{"a": 1}'))


def test_thoughts_are_counted_over_all_choices(tokenizer: ModelTokenizer) -> None:
    """Where each of them can be counted."""
    marks = (tokenizer.token_id("<|user|>"), tokenizer.token_id("<|end|>"))
    parsing = Parsing(None, None, reasons=True, thinking=True, shown=True, think_ids=marks)
    choices = [Assembler(tokenizer, (), log_probs=False) for _ in range(2)]
    choices[0].tokens(tokenizer.encode("<|user|>a b c<|end|>d", add_special_tokens=False), None)
    choices[1].tokens(tokenizer.encode("a<|end|>", add_special_tokens=False), None)
    assert parsing.thought_tokens(choices) == tokenizer.count("a b c") + tokenizer.count("a")
    choices[1] = Assembler(tokenizer, (), log_probs=False)
    choices[1].text("a")
    assert parsing.thought_tokens(choices) is None
    assert parsing._replace(reasons=False).thought_tokens(choices) is None
