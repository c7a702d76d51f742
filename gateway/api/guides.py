"""Guides: every way to ask for an answer of a certain form, as the one guide that engines take.

OpenAI says `response_format`; vLLM and trtllm-serve know more names for the same. `json_object` does not need
the word JSON in the messages here, as at OpenAI: the guide alone keeps the answer to JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.api.errors import bad_request
from gateway.api.fields import typed
from inference.request import Guide

MAX_GUIDE_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 32
MAX_CHOICES = 1000
GUIDE_KEYS = frozenset(
    [
        "response_format",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "structured_outputs",
        "regex",
        "ebnf",
    ]
)
ANY_OBJECT = Guide("json_schema", '{"type":"object","additionalProperties":true}')
"""What OpenAI means by a JSON object. The engines' own guide for JSON also lets an array be the answer; and
XGrammar takes a schema that does not speak of further properties for one that forbids them."""
FORMATS = ("text", "json_object", "json_schema", "regex", "ebnf", "structural_tag")


class JsonSchema(Struct):
    """OpenAI's `response_format.json_schema`."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    """The guide holds in either case."""


class ResponseFormat(Struct):
    """OpenAI's `response_format`; `regex` and `ebnf` are trtllm-serve's."""

    type: str
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None


class StructuredOutputs(Struct):
    """vLLM's `structured_outputs`."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


Asked = tuple[str, Guide | None]
"""Field by the client's name, and its guide; None where no engine of a Triton lane can be told."""


def read_guide(raw: dict[str, Any]) -> Asked | None:
    """The guide that `raw` asks for. Raises ApiError 400, also where there are several."""
    asked = list(_asked(raw))
    if len(asked) > 1:
        names = " and ".join(f"`{name}`" for name, _ in asked)
        raise bad_request(f"{names} exclude each other. Send one of them.", asked[1][0])
    return asked[0] if asked else None


def _asked(raw: dict[str, Any]) -> Iterator[Asked]:
    if raw.get("response_format") is not None and (found := _response_format(raw["response_format"])):
        yield found
    if raw.get("structured_outputs") is not None:
        yield from _structured(raw["structured_outputs"])
    for name, value in raw.items():
        if value is None:
            continue
        match name:
            case "guided_json":
                yield name, _json(name, value)
            case "guided_regex" | "regex":
                yield name, _text(name, "regex", value)
            case "guided_grammar" | "ebnf":
                yield name, _text(name, "ebnf_grammar", value)
            case "guided_choice":
                yield name, _choice(name, value)


def _response_format(raw: dict[str, Any]) -> Asked | None:
    field = "response_format"
    form = typed(raw, ResponseFormat, field)
    if raw.keys() - ResponseFormat.__struct_fields__:
        return field, None
    match form.type:
        case "text":
            return None
        case "json_object":
            return field, ANY_OBJECT
        case "json_schema":
            return field, _json_schema(form)
        case "regex":
            return field, _text(f"{field}.regex", "regex", form.regex)
        case "ebnf":
            return field, _text(f"{field}.ebnf", "ebnf_grammar", form.ebnf)
        case "structural_tag":
            return field, None
    raise bad_request(f"`{field}.type` must be one of {', '.join(FORMATS)}.", f"{field}.type")


def _json_schema(form: ResponseFormat) -> Guide:
    place = "response_format.json_schema"
    if form.json_schema is None:
        message = f'`{place}` is missing. Give an object such as {{"name": "...", "schema": {{...}}}}.'
        raise bad_request(message, place, "missing_required_parameter")
    if form.json_schema.schema is None:
        return ANY_OBJECT
    return _json(f"{place}.schema", form.json_schema.schema)


def _structured(raw: dict[str, Any]) -> Iterator[Asked]:
    field = "structured_outputs"
    outputs = typed(raw, StructuredOutputs, field)
    for name in raw:
        if name not in StructuredOutputs.__struct_fields__ and raw[name] is not None:
            yield field, None
    if outputs.json is not None:
        yield field, _json(f"{field}.json", outputs.json)
    if outputs.regex is not None:
        yield field, _text(f"{field}.regex", "regex", outputs.regex)
    if outputs.choice is not None:
        yield field, _choice(f"{field}.choice", outputs.choice)
    if outputs.grammar is not None:
        yield field, _text(f"{field}.grammar", "ebnf_grammar", outputs.grammar)
    if outputs.json_object:
        yield field, ANY_OBJECT


def _json(place: str, schema: dict[str, Any] | str) -> Guide:
    """A schema may come as JSON text."""
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.MsgspecError, RecursionError):
            schema = ""
        if not isinstance(schema, dict):
            raise bad_request(f"`{place}` must be a JSON schema: an object, or its JSON text.", place)
    if _deeper_than(schema, MAX_SCHEMA_DEPTH):
        raise bad_request(f"`{place}` nests deeper than the {MAX_SCHEMA_DEPTH} levels allowed here.", place)
    return Guide("json_schema", _within(place, msgspec.json.encode(schema).decode()))


def _text(place: str, kind: Any, text: str | None) -> Guide:
    if not text:
        raise bad_request(f"`{place}` is missing or empty. Give a string.", place)
    return Guide(kind, _within(place, text))


def _choice(place: str, choices: list[str]) -> Guide:
    """Engines know no choices: a grammar of one rule says the same."""
    if not 1 <= len(choices) <= MAX_CHOICES or "" in choices:
        raise bad_request(f"`{place}` must be an array of 1 to {MAX_CHOICES} texts, none empty.", place)
    listed = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    return Guide("ebnf_grammar", _within(place, f"root ::= {listed}"))


def _within(place: str, text: str) -> str:
    if len(text.encode()) > MAX_GUIDE_BYTES:
        raise bad_request(f"`{place}` is longer than the {MAX_GUIDE_BYTES} bytes allowed here.", place)
    return text


def _deeper_than(tree: Any, levels: int) -> bool:
    level = [tree]
    for _ in range(levels):
        inside = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        level = [child for child in inside if isinstance(child, (dict, list))]
        if not level:
            return False
    return True
