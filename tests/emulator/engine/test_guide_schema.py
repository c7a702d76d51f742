"""Bounds of open schemas: inside of what the schema says, and only where it says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.engine.guide_schema import ANY_OBJECT, LARGEST_NUMBER, MOST_ITEMS, SCALAR, bounded


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 100},
        {"type": "string", "pattern": "^a+$"},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": 5},
        {"type": "number", "exclusiveMaximum": 2},
        {"enum": ["a", 1]},
        {"const": None},
        {"type": "boolean"},
        {"$ref": "#/$defs/x"},
        {"type": "array", "items": {"type": "boolean"}, "maxItems": 50},
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False},
        False,
    ],
)
def test_what_is_limited_already_stays(schema: Any) -> None:
    assert bounded(schema) == schema


def test_open_values_get_bounds_at_every_depth() -> None:
    inner = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}
    made = bounded({"type": "object", "properties": {"a": inner}, "$defs": {"b": {"type": "integer"}}})
    assert made["additionalProperties"] is False
    assert made["properties"]["a"]["maxItems"] == MOST_ITEMS
    assert made["properties"]["a"]["items"]["anyOf"][0]["maximum"] == LARGEST_NUMBER
    assert made["$defs"]["b"]["minimum"] == -LARGEST_NUMBER


def test_lower_limits_are_kept() -> None:
    assert bounded({"type": "string", "minLength": 50})["pattern"].endswith("{50,50}$")
    assert bounded({"type": "array", "minItems": 9})["maxItems"] == 9
    assert bounded({"type": "array"})["items"] == SCALAR
    assert bounded({"type": "object", "required": list("abcdef")})["maxProperties"] == 6


def test_free_objects_become_small_ones() -> None:
    assert bounded({"type": "object"}) == ANY_OBJECT
    assert bounded({"type": "object", "title": "T"}) == {**ANY_OBJECT, "title": "T"}


def test_several_types_are_alternatives() -> None:
    made = bounded({"type": ["integer", "null"]})
    assert [one["type"] for one in made["anyOf"]] == ["integer", "null"]


def test_the_schema_that_came_is_not_changed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    bounded(schema)
    assert schema == {"type": "object", "properties": {"a": {"type": "string"}}}
