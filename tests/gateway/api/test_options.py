"""Options: what few requests ask for, under every name for it, and what asks for nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.api.errors import ApiError
from gateway.api.fields import ChatBody, CompletionBody, ServerFields
from gateway.api.guides import ANY_OBJECT
from gateway.api.json_body import BodyLimits
from gateway.api.options import ApiOptions
from gateway.api.parameters import PARAMETERS, UNCARRIED
from gateway.api.requests import ApiRequest, parse_completion
from inference.request import Guide
from tests.gateway.api.asked import chat
from tests.openai_schema import definitions

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
SCHEMA_TEXT = '{"type":"object","properties":{"a":{"type":"string"}}}'


def completion(**fields: Any) -> ApiRequest:
    return parse_completion(json.dumps({"model": "m", "prompt": "Hi", **fields}).encode(), BodyLimits())


def options(**fields: Any) -> ApiOptions:
    found = chat(**fields).options
    assert found is not None
    return found


def refused(**fields: Any) -> str | None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    return caught.value.param


def test_a_plain_request_has_none() -> None:
    assert chat(temperature=1, max_tokens=5, user="u", metadata={"a": "b"}).options is None
    assert chat(stream=True, stream_options={"include_usage": True}).options is None
    assert completion(logprobs=0, max_tokens=5).options is None


@pytest.mark.parametrize(
    "nothing",
    [
        {"logit_bias": {}},
        {"logit_bias": {"5": 0}},
        {"response_format": {"type": "text"}},
        {"bad_words": []},
        {"include_stop_str_in_output": True},
        {"skip_special_tokens": True},
        {"add_special_tokens": False},
        {"spaces_between_special_tokens": False},
        {"structured_outputs": {}},
        {"modalities": ["text"], "verbosity": "medium"},
        *({name: value} for name, (neutral, _) in UNCARRIED.items() for value in neutral if name != "suffix"),
    ],
)
def test_values_that_ask_for_nothing_cost_nothing(nothing: dict[str, Any]) -> None:
    assert chat(**nothing).options is None


@pytest.mark.parametrize("name", [name for name in UNCARRIED if name != "suffix"])
def test_what_has_no_tensor_is_kept_for_the_lane_to_judge(name: str) -> None:
    value = PARAMETERS[name].example
    extras = options(**{name: value}).extras
    assert extras.keys() == {name}
    assert extras[name].value == value
    assert extras[name].why


def test_what_only_completions_know() -> None:
    for fields, name in (
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": True, "logprobs": 0}, "echo"),
    ):
        found = completion(**fields).options
        assert found is not None
        assert found.extras.keys() == {name}
    assert completion(echo=True).echo


@pytest.mark.parametrize(
    ("fields", "guide"),
    [
        ({"response_format": {"type": "json_object"}}, ANY_OBJECT),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            Guide("json_schema", SCHEMA_TEXT),
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, ANY_OBJECT),
        (
            {"response_format": {"type": "regex", "regex": "a+"}},
            Guide("regex", "a+"),
        ),
        ({"guided_json": SCHEMA}, Guide("json_schema", SCHEMA_TEXT)),
        ({"guided_json": json.dumps(SCHEMA)}, Guide("json_schema", SCHEMA_TEXT)),
        ({"guided_regex": "a+"}, Guide("regex", "a+")),
        ({"guided_grammar": "root ::= x"}, Guide("ebnf_grammar", "root ::= x")),
        (
            {"guided_choice": ['say "a"', "b\n"]},
            Guide("ebnf_grammar", r'root ::= "say \"a\"" | "b\n"'),
        ),
        ({"structured_outputs": {"json": SCHEMA}}, Guide("json_schema", SCHEMA_TEXT)),
        ({"structured_outputs": {"json_object": True}}, ANY_OBJECT),
        ({"structured_outputs": {"regex": "a"}}, Guide("regex", "a")),
        (
            {"structured_outputs": {"choice": ["a"]}},
            Guide("ebnf_grammar", 'root ::= "a"'),
        ),
        ({"structured_outputs": {"grammar": "x"}}, Guide("ebnf_grammar", "x")),
        ({"regex": "a"}, Guide("regex", "a")),
        ({"ebnf": "x"}, Guide("ebnf_grammar", "x")),
    ],
)
def test_every_name_of_a_guide(fields: dict[str, Any], guide: Guide) -> None:
    """One guide, and under which name a lane that has none refuses it."""
    found = options(**fields)
    assert found.guide == guide
    assert found.names.get("response_format", "response_format").startswith(next(iter(fields)))
    by_completion = completion(**fields).options
    assert by_completion is not None
    assert by_completion.guide == guide


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 5}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": "yes"}}},
            "response_format.json_schema.strict",
        ),
        ({"guided_json": {"a": "x" * 70_000}}, "guided_json"),
        ({"guided_choice": ["a", ""]}, "guided_choice"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice[0]"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"guided_regex": "a", "guided_json": {}}, "guided_json"),
    ],
)
def test_a_guide_that_is_none_is_refused_by_its_place(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_a_schema_may_not_nest_for_ever() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"items": deep}
    assert refused(guided_json=deep) == "guided_json"


def test_a_form_that_engines_cannot_be_told_is_left_to_others() -> None:
    for fields in (
        {"response_format": {"type": "structural_tag", "format": {}}},
        {"structured_outputs": {"structural_tag": "x"}},
    ):
        found = options(**fields)
        assert found.guide is None
        assert found.extras.keys() == fields.keys()


def test_biases_are_by_id_without_those_of_0() -> None:
    assert options(logit_bias={"5": 1, "6": 0, "7": -2.5}).logit_bias == {5: 1, 7: -2.5}


def test_best_of_is_how_many_answers_are_made() -> None:
    got = completion(best_of=4, n=2)
    assert (got.answers, got.n, got.logprobs, got.sampling.log_probs) == (4, 2, False, True)
    assert got.options is not None
    assert got.options.names["logprobs"] == "best_of"
    assert completion(best_of=1).options is None
    assert completion(best_of=2, n=2).answers == 2


def test_logprobs_of_completions_above_0_are_the_likeliest_too() -> None:
    assert completion(logprobs=0).sampling.top_log_probs == 0
    got = completion(logprobs=1)
    assert got.sampling.top_log_probs == 1
    assert got.options is not None
    assert got.options.names == {"top_logprobs": "logprobs"}
    assert chat(logprobs=True, top_logprobs=3).sampling.top_log_probs == 3


def test_the_table_has_every_field_and_no_other() -> None:
    """Ours and those of OpenAI's own document."""
    ours = {f for body in (ChatBody, CompletionBody, ServerFields) for f in body.__struct_fields__}
    openais: set[str] = set()
    for name in ("CreateChatCompletionRequest", "CreateCompletionRequest"):
        openais |= properties(definitions()[name])
    assert PARAMETERS.keys() == ours
    assert openais <= ours


def properties(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", ()))
    for part in schema.get("allOf", ()):
        found |= properties(part)
    return found | (
        properties(definitions()[schema["$ref"].rpartition("/")[2]]) if "$ref" in schema else set()
    )
