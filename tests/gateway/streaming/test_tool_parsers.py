"""Tool calls of every family are found, whatever surrounds them and wherever chunks are cut."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.streaming.parts import PartParser, ToolArguments, ToolCall
from gateway.streaming.reader import MAX_HELD_CHARACTERS
from gateway.streaming.tool_parsers import FAMILIES
from gateway.streaming.tool_parsers.first_call import FirstCallOnly
from gateway.streaming.tool_parsers.forced import ForcedCallsParser, NamedCallParser
from model_registry.entities import ToolParserName
from tests.gateway.streaming.parsing import NAMES, Seen, counted_ids, cut, parse, tool_parser

WEATHER = '{"city": "Brno", "days": [1, 2], "note": "a \\"quoted\\" } </tool_call> [ text"}'
CALL = f'{{"name": "get_weather", "arguments": {WEATHER}}}'
LLAMA = f'{{"name": "get_weather", "parameters": {WEATHER}}}'
ADD = '{"name": "add", "arguments": {"a": 1}}'
FAMILY_NAMES: list[ToolParserName] = ["hermes", "llama3_json", "mistral", "pythonic"]

WELL_FORMED: list[tuple[ToolParserName, str, Seen]] = [
    ("hermes", f"<tool_call>\n{CALL}\n</tool_call>", [("call", "id0", "get_weather", WEATHER)]),
    (
        "hermes",
        f"Let me see.\n<tool_call>{CALL}</tool_call>\n<tool_call>\n{ADD}\n</tool_call>\nDone.",
        [
            ("text", "Let me see.\n"),
            ("call", "id0", "get_weather", WEATHER),
            ("call", "id1", "add", '{"a": 1}'),
            ("text", "Done."),
        ],
    ),
    (
        "hermes",
        f"<tool_call>{ADD}\n{ADD}</tool_call>",
        [("call", f"id{n}", "add", '{"a": 1}') for n in (0, 1)],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {"a": 1}, "id": 7, "name": "add"}</tool_call>',
        [("call", "id0", "add", '{"a": 1}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}", "x": null}</tool_call>',
        [("call", "id0", "add", '{"a": 1}')],
    ),
    ("hermes", '<tool_call>{"name": "add"}</tool_call>', [("call", "id0", "add", "{}")]),
    ("hermes", '<tool_call>{"name": "add", "arguments": null}</tool_call>', [("call", "id0", "add", "{}")]),
    ("llama3_json", LLAMA, [("call", "id0", "get_weather", WEATHER)]),
    ("llama3_json", f"<|python_tag|>{LLAMA}", [("call", "id0", "get_weather", WEATHER)]),
    (
        "llama3_json",
        f'\n{LLAMA}; {{"name": "add", "parameters": {{}}}} ',
        [("call", "id0", "get_weather", WEATHER), ("call", "id1", "add", "{}")],
    ),
    (
        "llama3_json",
        'I call.<|python_tag|>{"type": "function", "name": "other", "parameters": {"a": 1}}',
        [("text", "I call."), ("call", "id0", "other", '{"a": 1}')],
    ),
    ("mistral", f"[TOOL_CALLS][{CALL}]", [("call", "id0", "get_weather", WEATHER)]),
    (
        "mistral",
        f"Well.[TOOL_CALLS] [{CALL}, {ADD}]",
        [("text", "Well."), ("call", "id0", "get_weather", WEATHER), ("call", "id1", "add", '{"a": 1}')],
    ),
    (
        "mistral",
        f"[{CALL}, {ADD}]",
        [("call", "id0", "get_weather", WEATHER), ("call", "id1", "add", '{"a": 1}')],
    ),
    (
        "mistral",
        f"[TOOL_CALLS]get_weather[ARGS]{WEATHER}[TOOL_CALLS]add{{}}",
        [("call", "id0", "get_weather", WEATHER), ("call", "id1", "add", "{}")],
    ),
    (
        "mistral",
        '[TOOL_CALLS]add[CALL_ID]aB3dE6gH9[ARGS]{"a": 1}',
        [("call", "aB3dE6gH9", "add", '{"a": 1}')],
    ),
    ("mistral", 'add{"a": 1}', [("call", "id0", "add", '{"a": 1}')]),
    (
        "pythonic",
        '[get_weather(city="Brno", days=[1, -2.5], deep={"a": (True, None)}), add()]',
        [
            (
                "call",
                "id0",
                "get_weather",
                '{"city": "Brno", "days": [1, -2.5], "deep": {"a": [true, null]}}',
            ),
            ("call", "id1", "add", "{}"),
        ],
    ),
    (
        "pythonic",
        "<|python_start|>[add(a='it\\'s, )', b=true)]<|python_end|> ok",
        [("call", "id0", "add", '{"a": "it\'s, )", "b": true}'), ("text", "ok")],
    ),
    ("pythonic", '[add(a="""x"y""", b=1,)]', [("call", "id0", "add", '{"a": "x\\"y", "b": 1}')]),
]

ONLY_TEXT: list[tuple[ToolParserName, str]] = [
    ("hermes", "a <tool_call> is written so"),
    ("hermes", "<tool_call>\n[1, 2]\n</tool_call>"),
    ("hermes", '<tool_call>{"title": "add", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "add", "arguments": 5}</tool_call>'),
    ("hermes", '<tool_call>{"name": "ad'),
    ("hermes", " 1 < 2 <tool_cal"),
    ("hermes", "\n \n"),
    ("llama3_json", '{"name": "Bob", "parameters": {"age": 3}}'),
    ("llama3_json", '{"name": "add"'),
    ("llama3_json", "<|python_tag|>print(1)"),
    ("llama3_json", f"The call is {LLAMA}"),
    ("mistral", "[1] and [TOOL_CALLS] are marks"),
    ("mistral", '[{"name": "Bob"}]'),
    ("mistral", "[TOOL_CALLS]add[ARGS]nothing"),
    ("mistral", "add some sugar"),
    ("pythonic", "[add(1)]"),
    ("pythonic", "[other(a=1)]"),
    ("pythonic", "[add, get_weather]"),
    ("pythonic", '[add(a=__import__("os"))]'),
    ("pythonic", "[add(a=open)]"),
    ("pythonic", "[add(a={1, 2})]"),
    ("pythonic", "Use add(a=1)."),
    ("pythonic", "[add(a=" + "[" * 400),
]

GONE_WRONG: list[tuple[ToolParserName, str, Seen]] = [
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1', [("call", "id0", "add", '{"a": 1')]),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>ok',
        [("call", "id0", "add", '{"a": 1'), ("text", "ok")],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call>',
        [("call", "id0", "add", '{"a": 1}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": 1}}}</tool_call>',
        [("call", "id0", "add", '{"a": 1}')],
    ),
    (
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"a": oops]}}</tool_call>',
        [("call", "id0", "add", '{"a": oops]}}')],
    ),
    ("hermes", f"<tool_call>{ADD} and so on", [("call", "id0", "add", '{"a": 1}'), ("text", " and so on")]),
    (
        "llama3_json",
        '{"name": "add", "parameters": {"a": 1}}; {"name": 5}',
        [("call", "id0", "add", '{"a": 1}'), ("text", '; {"name": 5}')],
    ),
    ("mistral", f"[{ADD}, 5]", [("call", "id0", "add", '{"a": 1}'), ("text", ", 5]")]),
    ("mistral", '[TOOL_CALLS]add[ARGS]{"a": (}', [("call", "id0", "add", '{"a": (}')]),
    ("pythonic", "[add(a=1, b=c(2))] x", [("call", "id0", "add", '{"a": 1, b=c(2))] x')]),
    ("pythonic", '[add(a=1, b="x', [("call", "id0", "add", '{"a": 1, b="x')]),
]


@pytest.mark.parametrize(("family", "text", "expected"), WELL_FORMED + GONE_WRONG)
def test_calls_are_found_at_any_chunk_border(family: ToolParserName, text: str, expected: Seen) -> None:
    """Whole, by characters, and cut once anywhere; text around calls is kept."""
    assert parse(tool_parser(family), [text]) == expected
    assert parse(tool_parser(family), list(text)) == expected
    for border in range(len(text)):
        assert parse(tool_parser(family), cut(text, [border])) == expected


@pytest.mark.parametrize(("family", "text"), ONLY_TEXT)
def test_what_only_looks_like_a_call_is_text(family: ToolParserName, text: str) -> None:
    assert parse(tool_parser(family), [text]) == [("text", text)]
    assert parse(tool_parser(family), list(text)) == [("text", text)]


PIECES = [
    *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    *("<|python_start|>", "<|python_end|>", "add", "get_weather", "(", ")", "a=", "=", "'", '"""'),
    *("{", "}", "[", "]", '"', ":", ",", ";", "\\", " ", "\n", '"name"', '"arguments"', '"parameters"'),
    *(ADD, CALL, LLAMA, WEATHER, '"add"', "1", "null", "true", "<", "|", "ž", "🚂", "text"),
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3))).map("".join)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@given(text=TEXTS, data=st.data())
def test_any_chunking_gives_the_same(family: ToolParserName, text: str, data: st.DataObject) -> None:
    """Of any text; and nothing of it makes a parser fail."""
    borders = data.draw(st.lists(st.integers(0, len(text))))
    assert parse(tool_parser(family), cut(text, borders)) == parse(tool_parser(family), [text])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), JSON, max_size=4)


def written(family: ToolParserName, calls: list[dict[str, Any]]) -> str:
    """As a model of the family writes `calls`."""
    dumped = [json.dumps({"name": "add", "arguments": call}, ensure_ascii=False) for call in calls]
    if family == "hermes":
        return "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in dumped)
    if family == "llama3_json":
        return "; ".join(dumped)
    if family == "mistral":
        return f"[TOOL_CALLS][{', '.join(dumped)}]"
    named = (", ".join(f"{name}={value!r}" for name, value in call.items()) for call in calls)
    return f"[{', '.join(f'add({arguments})' for arguments in named)}]"


@pytest.mark.parametrize("family", FAMILY_NAMES)
@given(calls=st.lists(ARGUMENTS, min_size=1, max_size=3), size=st.integers(1, 7))
@example(calls=[{"a": "</tool_call>"}], size=1)
def test_arguments_are_the_json_that_was_meant(
    family: ToolParserName, calls: list[dict[str, Any]], size: int
) -> None:
    text = written(family, calls)
    seen = parse(tool_parser(family), cut(text, range(0, len(text), size)))
    assert [kind for kind, *_ in seen] == ["call"] * len(calls)
    assert [json.loads(item[3]) for item in seen] == calls


@pytest.mark.parametrize(
    ("family", "before", "after"),
    [
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": "', "long"),
        ("llama3_json", '{"name": "add", "parameters": {"a": "', "long"),
        ("mistral", '[TOOL_CALLS]add[ARGS]{"a": "', "long"),
        ("pythonic", "[add(a=1,", ""),
    ],
)
def test_a_call_is_told_at_once(family: ToolParserName, before: str, after: str) -> None:
    """Its name and first arguments are out before the call ends."""
    parser = tool_parser(family)
    parts = parser.push(before)
    assert ToolCall(0, "id0", "add") in parts
    assert any(isinstance(part, ToolArguments) for part in parts)
    if after:
        assert parser.push(after) == [ToolArguments(0, after)]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("chunk", [1 << 12, 1 << 16])
def test_what_is_held_back_is_bounded(family: ToolParserName, chunk: int) -> None:
    """A call that never becomes one turns out as text, and what was let out is not kept."""
    opening = {
        "hermes": '<tool_call>{"x": "',
        "llama3_json": '{"x": "',
        "mistral": '[{"x": "',
        "pythonic": '[add(a="',
    }[family]
    parser = tool_parser(family)
    parser.push(opening)
    held, out = len(opening), 0
    for _ in range((1 << 21) // chunk):
        held += chunk
        out += sum(len(part.text) for part in parser.push("y" * chunk))  # type: ignore[union-attr]
        assert held - out <= MAX_HELD_CHARACTERS + chunk
    tracemalloc.start()
    for _ in range(64):
        parser.push("z" * chunk)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 * MAX_HELD_CHARACTERS


def test_long_arguments_are_not_kept() -> None:
    parser = tool_parser("hermes")
    parser.push('<tool_call>{"name": "add", "arguments": {"a": "')
    for _ in range(100):
        parts = parser.push("y" * 5000)
        assert parts == [ToolArguments(0, "y" * 5000)]
    assert parser.push('"}}</tool_call>') == [ToolArguments(0, '"}')]


def test_ids_are_what_openai_and_mistrals_templates_take() -> None:
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", FAMILIES["hermes"].make_id())
    assert re.fullmatch(r"[A-Za-z0-9]{9}", FAMILIES["mistral"].make_id())
    assert len({FAMILIES["mistral"].make_id() for _ in range(100)}) == 100


def both(text: str, make: type[FirstCallOnly] | None = None) -> Seen:
    parsers: list[PartParser] = [tool_parser("hermes"), tool_parser("hermes")]
    if make is not None:
        parsers = [make(parser) for parser in parsers]
    whole = parse(parsers[0], [text])
    assert parse(parsers[1], list(text)) == whole
    return whole


def test_one_call_only() -> None:
    """Text and the first call stay, the second and all after it do not."""
    text = f"So:<tool_call>{ADD}</tool_call> and <tool_call>{CALL}</tool_call> end"
    assert len(both(text)) == 5
    expected = [("text", "So:"), ("call", "id0", "add", '{"a": 1}'), ("text", "and ")]
    assert both(text, FirstCallOnly) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f' [{{"name": "add", "parameters": {{"a": 1}}}}, {CALL}]\n',
            [("call", "id0", "add", '{"a": 1}'), ("call", "id1", "get_weather", WEATHER)],
        ),
        ("no array", [("text", "no array")]),
    ],
)
def test_a_required_call(text: str, expected: Seen) -> None:
    for chunks in ([text], list(text)):
        seen = parse(ForcedCallsParser(NAMES, counted_ids()), chunks)
        assert [item for item in seen if item != ("text", "\n")] == expected


def test_a_named_call() -> None:
    for chunks in ([f"\n{WEATHER}\n"], list(f"\n{WEATHER}\n")):
        parser = NamedCallParser("get_weather", NAMES, counted_ids())
        assert parse(parser, chunks) == [("call", "id0", "get_weather", WEATHER)]
    parser = NamedCallParser("get_weather", NAMES, counted_ids())
    assert parse(parser, ["none"]) == [("text", "none")]
