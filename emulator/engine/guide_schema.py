"""JSON schemas made finite: a small model that may write for ever often does.

Pure. What a schema leaves open gets a bound that lies inside of what the schema allows: strings, arrays
and numbers become short, objects have no further properties (as under XGrammar's strict mode), and
"anything" is a document of two levels. What the schema itself limits is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 32
MOST_ITEMS = 4
LARGEST_NUMBER = 999_999

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_FIXED = ("enum", "const", "$ref", "anyOf", "oneOf", "allOf")
_TEXT_BOUNDS = ("maxLength", "pattern", "format")
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

Schema = dict[str, Any]


def _text_pattern(shortest: int) -> str:
    """Plain characters, one byte each, so that a text is never more tokens than characters."""
    return f"^[A-Za-z0-9 ,.!?-]{{{shortest},{max(LONGEST_TEXT, shortest)}}}$"


SCALAR: Schema = {
    "anyOf": [
        {"type": "string", "pattern": _text_pattern(0)},
        {"type": "integer", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER},
        {"type": "boolean"},
        {"type": "null"},
    ]
}


def _object(values: Schema) -> Schema:
    return {
        "type": "object",
        "patternProperties": {"^[a-z_]{1,12}$": values},
        "additionalProperties": False,
        "maxProperties": MOST_ITEMS,
    }


def _array(values: Schema) -> Schema:
    return {"type": "array", "items": values, "maxItems": MOST_ITEMS}


_INNER: Schema = {"anyOf": [*SCALAR["anyOf"], _object(SCALAR), _array(SCALAR)]}
ANY_OBJECT = _object(_INNER)
ANY_DOCUMENT: Schema = {"anyOf": [ANY_OBJECT, _array(_INNER)]}
"""What the guide type `json` allows: an object or an array."""


def bounded(schema: Any) -> Any:
    """The schema with bounds where it has none; what is no schema comes back as it is."""
    if schema is True or schema == {}:
        return _INNER
    if not isinstance(schema, Mapping):
        return schema
    made: Schema = dict(schema)
    for key in _MAPS:
        if isinstance(made.get(key), Mapping):
            made[key] = {name: bounded(inner) for name, inner in made[key].items()}
    for key in _SINGLE:
        if key in made:
            made[key] = bounded(made[key])
    for key in _LISTS:
        if isinstance(made.get(key), list):
            made[key] = [bounded(inner) for inner in made[key]]
    return made if any(key in made for key in _FIXED) else _bounded_type(made)


def _bounded_type(schema: Schema) -> Schema:
    kind = schema.get("type")
    if isinstance(kind, list):
        return {"anyOf": [_bounded_type({**schema, "type": one}) for one in kind]}
    if kind == "string" and not any(key in schema for key in _TEXT_BOUNDS):
        rest = {key: value for key, value in schema.items() if key != "minLength"}
        return {**rest, "pattern": _text_pattern(schema.get("minLength", 0))}
    if kind in ("integer", "number") and not any(key in schema for key in _NUMBER_BOUNDS):
        return {**schema, "type": "integer", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER}
    if kind == "array":
        return _bounded_array(schema)
    if kind == "object" or (kind is None and "properties" in schema):
        return _bounded_object(schema)
    return schema


def _bounded_array(schema: Schema) -> Schema:
    most = max(MOST_ITEMS, schema.get("minItems", 0), len(schema.get("prefixItems", ())))
    return {"items": SCALAR, "maxItems": most, **schema}


def _bounded_object(schema: Schema) -> Schema:
    if "properties" in schema or "patternProperties" in schema:
        return {"additionalProperties": False, **schema}
    if "additionalProperties" in schema or "required" in schema:
        return {"maxProperties": max(MOST_ITEMS, len(schema.get("required", ()))), **schema}
    return {**ANY_OBJECT, **schema}
