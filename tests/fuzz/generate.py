"""Instances of a JSON Schema, drawn at random but repeatably.

Only what OpenAI's schemas use is understood; another keyword that restricts values is an error, so that a
newer schema cannot weaken the tests unseen.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.openai_schema import definitions

TEXTS = (
    "",
    "a",
    "Say hello.",
    "tell me about engines\n" * 20,
    "žluťoučký kůň",
    "日本語のテキスト",
    "🧵👩‍👩‍👧 family",
    "<|im_end|><|endoftext|>",
    '"quoted" \\ back\\slash \\u0041 / \t\r\n',
    "{{ messages }}{% for x in y %}",
    "\u2028\u2029\ufeff\u200b\u202e",
    "\x01\x1f\x7f\x9f",
)
_UNDERSTOOD = frozenset(
    [
        "$ref", "type", "enum", "anyOf", "oneOf", "allOf", "properties", "required", "additionalProperties",
        "items", "minItems", "maxItems", "minimum", "maximum", "maxLength", "format",
    ]
)  # fmt: skip
_OPTIONAL_SHARE = 0.3
_MOST_ITEMS = 3


class Generator:
    """Draws instances; the same seed draws the same ones."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def draw(self, name: str) -> Any:
        """An instance of the schema that OpenAI calls `name`."""
        return self._instance(definitions()[name])

    def _instance(self, schema: dict[str, Any]) -> Any:
        if strange := schema.keys() - _UNDERSTOOD:
            raise NotImplementedError(f"the generator does not know {sorted(strange)}")
        if "$ref" in schema:
            return self.draw(schema["$ref"].rpartition("/")[2])
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self._instance(self._random.choice(schema[union]))
        if "allOf" in schema:
            return self._merged(schema["allOf"])
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        return self._typed(schema)

    def _merged(self, schemas: list[dict[str, Any]]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for schema in schemas:
            merged |= self._instance(schema)
        return merged

    def _typed(self, schema: dict[str, Any]) -> Any:
        match schema.get("type", "object"):
            case "object":
                return self._object(schema)
            case "array":
                most = min(schema.get("maxItems", _MOST_ITEMS), _MOST_ITEMS)
                return [
                    self._instance(schema["items"])
                    for _ in range(self._count(schema.get("minItems", 0), most))
                ]
            case "string":
                return self._random.choice(TEXTS)[: schema.get("maxLength")]
            case "integer":
                return self._random.randint(self._least(schema), self._most(schema))
            case "number":
                return round(self._random.uniform(self._least(schema), self._most(schema)), 3)
            case "boolean":
                return self._random.random() < 0.5
            case "null":
                return None
            case other:
                raise NotImplementedError(f"the generator does not know the type {other}")

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        required = schema.get("required", ())
        drawn = {
            name: self._instance(member)
            for name, member in schema.get("properties", {}).items()
            if name in required or self._random.random() < _OPTIONAL_SHARE
        }
        if isinstance(schema.get("additionalProperties"), dict):
            for n in range(self._count(0, _MOST_ITEMS)):
                drawn[str(n)] = self._instance(schema["additionalProperties"])
        return drawn

    def _count(self, least: int, most: int) -> int:
        return self._random.randint(least, max(least, most))

    def _least(self, schema: dict[str, Any]) -> int:
        return int(max(schema.get("minimum", -1000), -(2**63)))

    def _most(self, schema: dict[str, Any]) -> int:
        return int(min(schema.get("maximum", 1000), 2**63 - 1))
