"""OpenAI's own schema, to check what the gateway says against it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_PATH = Path(__file__).parent / "data" / "openai" / "schemas.json"


@cache
def definitions() -> dict[str, Any]:
    """Every schema by its name in OpenAI's document; references read `#/$defs/<name>`."""
    defined: dict[str, Any] = json.loads(_PATH.read_text())["$defs"]
    return defined


def validate(name: str, value: Any) -> None:
    """Raise jsonschema.ValidationError if `value` is not what OpenAI calls `name`."""
    _validator(name).validate(value)


def is_valid(name: str, value: Any) -> bool:
    """Whether `value` is what OpenAI calls `name`."""
    return _validator(name).is_valid(value)


@cache
def _validator(name: str) -> Draft202012Validator:
    if name not in definitions():
        raise KeyError(f"{name} is not in {_PATH.name}: add it to ROOTS of trim.py")
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions()})
